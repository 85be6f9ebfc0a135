/** The tokenizer of a model folder: Hugging Face's Rust library on its tokenizer.json. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer as RustTokenizer } from "tokenizers";
import { addedTokens, withoutSpecialTokens } from "./added-tokens.js";
import { ModelError } from "./errors.js";
import { readTextIfAny } from "./json.js";

export interface Tokenizer {
  /**
   * Ids of a text. Special tokens that the text spells out become theirs; none are added. Half a surrogate pair is
   * taken for U+FFFD.
   */
  encode(text: string): Promise<number[]>;
  /** Ids of a text that is nothing but text: what reads like a special token becomes the ids of its letters. */
  encodePlain(text: string): Promise<number[]>;
  /** The text of ids, special tokens left out. */
  decode(ids: readonly number[]): Promise<string>;
  /** The id of a token as the vocabulary spells it, or null. */
  idOf(token: string): number | null;
  /** What controls a model rather than being text, such as `<bos>` and `<end_of_turn>`, as the vocabulary spells it. */
  readonly specialTokens: readonly string[];
  /** The ids of all tokens, as the vocabulary spells them. */
  vocabulary(): Readonly<Record<string, number>>;
  /** Entries, special tokens included. The model's embedding may have more rows. */
  readonly vocabSize: number;
}

/**
 * Reads tokenizer.json, or gives null where the folder has none. A text with an id that is not below `vocabSize`, of the
 * model's embedding, is a ModelError.
 */
export async function loadTokenizer(dir: string, vocabSize = Infinity): Promise<Tokenizer | null> {
  const path = join(dir, "tokenizer.json");
  const text = await readTextIfAny(path);
  if (text === null) return null;
  const rust = parse(path, text);
  const specialTokens = addedTokens(text)
    .filter(({ special }) => special)
    .map(({ content }) => content);
  // A second one for what few texts need: it takes as long to load, and as much memory, as the first.
  let plain: Promise<RustTokenizer> | undefined;
  const idsOf = async (by: RustTokenizer, sentence: string): Promise<number[]> => {
    const ids = (await by.encode(sentence, null, { addSpecialTokens: false })).getIds();
    const wrong = ids.find((id) => id >= vocabSize);
    if (wrong === undefined) return ids;
    const token = JSON.stringify(by.idToToken(wrong));
    const expected = `expected less than ${vocabSize} (vocab_size of the model): is it another model's tokenizer?`;
    throw new ModelError(path, `${token} has the id ${wrong}, ${expected}`);
  };
  const loadPlain = async () => parse(path, withoutSpecialTokens(await readFile(path, "utf8")));
  return {
    encode: (sentence) => idsOf(rust, sentence),
    encodePlain: async (sentence) => {
      if (!specialTokens.some((token) => sentence.includes(token))) return idsOf(rust, sentence);
      plain ??= loadPlain();
      return idsOf(await plain, sentence);
    },
    decode: (ids) => rust.decode([...ids], true),
    idOf: (token) => rust.tokenToId(token),
    specialTokens,
    vocabulary: () => rust.getVocab(true),
    vocabSize: rust.getVocabSize(true),
  };
}

/**
 * Decodes ids as they come: each call takes the next ids and gives the text that they complete, "" where the last
 * character is not whole yet (one written in bytes spans up to four tokens). The call with `last` gives what is left,
 * as U+FFFD where it stays cut off. What the calls give, joined, is `decode` of all ids, if their bytes are text.
 */
export function incrementalDecoder(
  tokenizer: Tokenizer,
): (ids: readonly number[], options?: { readonly last?: boolean }) => Promise<string> {
  let pending: number[] = [];
  return async (ids, { last = false } = {}) => {
    pending.push(...ids);
    const text = await tokenizer.decode(pending);
    if (!last && text.endsWith("\uFFFD")) return "";
    pending = [];
    return text;
  };
}

function parse(path: string, text: string): RustTokenizer {
  try {
    const rust = RustTokenizer.fromString(text);
    rust.disableTruncation();
    rust.disablePadding();
    return rust;
  } catch (error) {
    const problem = `not a tokenizer (${(error as Error).message}), expected a tokenizer.json of Hugging Face: get it again`;
    throw new ModelError(path, problem, { cause: error });
  }
}
