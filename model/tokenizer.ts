/** The tokenizer of a model folder: Hugging Face's Rust library on its tokenizer.json. */
import { join } from "node:path";
import { Tokenizer as RustTokenizer } from "tokenizers";
import { ModelError } from "./errors.js";
import { readTextIfAny } from "./json.js";

export interface Tokenizer {
  /** Ids of a text. Special tokens that the text spells out become theirs; none are added. */
  encode(text: string): Promise<number[]>;
  /** The text of ids, special tokens left out. */
  decode(ids: readonly number[]): Promise<string>;
  /** The id of a token as the vocabulary spells it, or null. */
  idOf(token: string): number | null;
  /** Entries, special tokens included. The model's embedding may have more rows. */
  readonly vocabSize: number;
}

/** Reads tokenizer.json, or gives null where the folder has none. */
export async function loadTokenizer(dir: string): Promise<Tokenizer | null> {
  const path = join(dir, "tokenizer.json");
  const text = await readTextIfAny(path);
  if (text === null) return null;
  const rust = parse(path, text);
  return {
    encode: async (sentence) => (await rust.encode(sentence, null, { addSpecialTokens: false })).getIds(),
    decode: (ids) => rust.decode([...ids], true),
    idOf: (token) => rust.tokenToId(token),
    vocabSize: rust.getVocabSize(true),
  };
}

function parse(path: string, text: string): RustTokenizer {
  try {
    const rust = RustTokenizer.fromString(text);
    rust.disableTruncation();
    rust.disablePadding();
    return rust;
  } catch (error) {
    throw new ModelError(path, `not a tokenizer (${(error as Error).message})`, { cause: error });
  }
}
