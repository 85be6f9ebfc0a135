// The tokenizer of a GGUF file (SentencePiece's BPE: tokens with scores) as Hugging Face's files.
import { ModelError } from "../model/errors.js";
import type { TokenIds } from "./gemma-config.js";
import type { MetadataReader } from "./metadata.js";

/** llama.h, enum llama_token_type. */
const CONTROL = 3;
const USER_DEFINED = 4;

export interface SentencePiece {
  /** Pieces by id; spaces are "▁". */
  readonly pieces: readonly string[];
  /** The piece of the highest score is merged first. */
  readonly scores: readonly number[];
  readonly types: readonly number[];
  readonly bos: number | null;
  readonly eos: number | null;
  readonly pad: number | null;
  readonly unknown: number | null;
  readonly addsBos: boolean;
  readonly addsEos: boolean;
  readonly chatTemplate: string | null;
}

/** Reads `tokenizer.ggml.*`. Throws a ModelError for another kind of tokenizer, and for what does not fit together. */
export function readSentencePiece(metadata: MetadataReader): SentencePiece {
  const { path } = metadata;
  const key = (name: string) => `tokenizer.ggml.${name}`;
  const kind = metadata.string(key("model"));
  if (kind !== "llama") {
    throw new ModelError(path, `metadata "${key("model")}" is "${kind}", expected "llama" (SentencePiece with scores)`);
  }
  if (metadata.flag(key("add_space_prefix"), false)) {
    throw new ModelError(path, `metadata "${key("add_space_prefix")}" is true, expected false as Gemma has it`);
  }
  const tokens = metadata.strings(key("tokens"));
  const scores = metadata.numbers(key("scores"));
  const types = metadata.numbers(key("token_type"));
  for (const [name, list] of Object.entries({ scores, token_type: types })) {
    if (list.length === tokens.length) continue;
    throw new ModelError(
      path,
      `metadata "${key(name)}" has ${list.length} entries, expected ${tokens.length} (tokens)`,
    );
  }
  // llama.cpp's converter turns "▁" of user-defined tokens into spaces and gives them a score; SentencePiece's is 0.
  const isUserDefined = (id: number) => types[id] === USER_DEFINED;
  const id = (name: string) => {
    const value = metadata.id(key(name), null);
    if (value === null || value < tokens.length) return value;
    throw new ModelError(path, `metadata "${key(name)}" is ${value}, expected less than ${tokens.length} (tokens)`);
  };
  const pieces = tokens.map((token, i) => (isUserDefined(i) ? token.replaceAll(" ", "▁") : token));
  checkDistinct(path, pieces);
  return {
    pieces,
    scores: scores.map((score, i) => (isUserDefined(i) ? 0 : score)),
    types,
    bos: id("bos_token_id"),
    eos: id("eos_token_id"),
    pad: id("padding_token_id"),
    unknown: id("unknown_token_id"),
    addsBos: metadata.flag(key("add_bos_token"), true),
    addsEos: metadata.flag(key("add_eos_token"), false),
    chatTemplate: metadata.string("tokenizer.chat_template", null),
  };
}

function checkDistinct(path: string, pieces: readonly string[]): void {
  const ids = new Map<string, number>();
  for (const [id, piece] of pieces.entries()) {
    const other = ids.get(piece);
    if (other !== undefined) throw new ModelError(path, `tokens ${other} and ${id} are both ${JSON.stringify(piece)}`);
    ids.set(piece, id);
  }
}

/** Tokens that end a text or, for a model with a chat template, a turn: by name too, as llama.cpp finds them. */
export function tokenIdsOf({ pieces, bos, eos, pad, chatTemplate }: SentencePiece): TokenIds {
  if (chatTemplate === null) return { bos, eos, pad };
  const named = ["<eos>", "<end_of_turn>"].map((piece) => pieces.indexOf(piece)).filter((id) => id >= 0);
  const ends = new Set([...(eos === null ? [] : [eos]), ...named]);
  return { bos, eos: [...ends].sort((a, b) => a - b), pad };
}

/** Texts of the tokenizer's files by name. `maxTokens`: the context that the model was trained for. */
export function tokenizerFiles(tokenizer: SentencePiece, maxTokens: number): Record<string, string> {
  const { pieces, bos, eos, pad, unknown, addsBos, addsEos, chatTemplate } = tokenizer;
  const token = (id: number | null) => (id === null ? null : pieces[id]!);
  const config = {
    add_bos_token: addsBos,
    add_eos_token: addsEos,
    bos_token: token(bos),
    clean_up_tokenization_spaces: false,
    eos_token: token(eos),
    model_max_length: maxTokens,
    pad_token: token(pad),
    spaces_between_special_tokens: false,
    tokenizer_class: "GemmaTokenizer",
    unk_token: token(unknown),
    use_default_system_prompt: false,
  };
  return {
    "tokenizer.json": tokenizerJson(tokenizer),
    "tokenizer_config.json": `${JSON.stringify(config, null, 2)}\n`,
    ...(chatTemplate === null ? {} : { "chat_template.jinja": chatTemplate }),
  };
}

/** Pieces that the hub does not call special: llama.cpp's converter takes them for control tokens by their looks. */
const RESERVED = /^(<unused\d+>|<mask>|<2mass>|\[@BOS@\])$/;
/** Pieces that the hub calls special, and the converter user-defined. */
const IMAGE = /^<(start|end)_of_image>$/;

/** tokenizer.json as the hub has it for Gemma. Control and user-defined tokens are found before BPE sees a text. */
function tokenizerJson(tokenizer: SentencePiece): string {
  const { pieces, types, unknown } = tokenizer;
  const added = pieces.flatMap((content, id) => {
    const type = types[id];
    if (type !== CONTROL && type !== USER_DEFINED && id !== unknown) return [];
    const special = (type !== USER_DEFINED && !RESERVED.test(content)) || IMAGE.test(content);
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false },
    post_processor: postProcessor(tokenizer),
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown === null ? null : pieces[unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges: mergesOf(tokenizer),
    },
  });
}

/** `<bos>` in front of each text and `<eos>` behind it, where the model has them so. */
function postProcessor({ pieces, bos, eos, addsBos, addsEos }: SentencePiece): unknown {
  const front = addsBos && bos !== null ? [bos] : [];
  const back = addsEos && eos !== null ? [eos] : [];
  const special = (type: number) => (id: number) => ({ SpecialToken: { id: pieces[id]!, type_id: type } });
  const text = (id: "A" | "B", type: number) => [
    ...front.map(special(type)),
    { Sequence: { id, type_id: type } },
    ...back.map(special(type)),
  ];
  const tokens = [...front, ...back].map((id) => [pieces[id]!, { id: pieces[id]!, ids: [id], tokens: [pieces[id]!] }]);
  return {
    type: "TemplateProcessing",
    single: text("A", 0),
    pair: [...text("A", 0), ...text("B", 1)],
    special_tokens: Object.fromEntries(tokens),
  };
}

/**
 * Merges of a BPE by rank that splits as SentencePiece does by score: each way to make a piece of two others, the pieces of
 * the highest score first; of one score, the longest left part first (as transformers' generate_merges).
 */
export function mergesOf({ pieces, scores }: Pick<SentencePiece, "pieces" | "scores">): [string, string][] {
  const known = new Set(pieces);
  const byScore = pieces.map((_, id) => id).sort((a, b) => scores[b]! - scores[a]!);
  const merges: [string, string][] = [];
  for (let at = 0; at < byScore.length; ) {
    const score = scores[byScore[at]!];
    const ways = waysToMake(pieces[byScore[at++]!]!, known);
    const isAlone = byScore[at] === undefined || scores[byScore[at]!] !== score;
    for (; byScore[at] !== undefined && scores[byScore[at]!] === score; at++) {
      ways.push(...waysToMake(pieces[byScore[at]!]!, known));
    }
    if (!isAlone) ways.sort(([a, b], [c, d]) => characters(c) - characters(a) || characters(d) - characters(b));
    for (const way of ways) merges.push(way);
  }
  return merges;
}

/** Pairs of known pieces that a piece is, the longest left part first. */
function waysToMake(piece: string, known: ReadonlySet<string>): [string, string][] {
  const ways: [string, string][] = [];
  for (let cut = piece.length - 1; cut > 0; cut--) {
    if (isLowSurrogate(piece.charCodeAt(cut))) continue;
    const [left, right] = [piece.slice(0, cut), piece.slice(cut)];
    if (known.has(left) && known.has(right)) ways.push([left, right]);
  }
  return ways;
}

const isLowSurrogate = (unit: number): boolean => unit >= 0xdc00 && unit <= 0xdfff;
const characters = (text: string): number => [...text].length;
