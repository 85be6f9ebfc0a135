// The vocabulary of a tokenizer.json, Hugging Face's format: plain JSON, whatever the kind of the tokenizer's model.
import { join } from "node:path";
import { ModelError } from "../model/errors.js";
import { type JsonObject, readTextIfAny } from "../model/json.js";

/** A token that is found in a text before the tokenizer's model sees it. */
export interface AddedToken extends JsonObject {
  readonly id: number;
  readonly content: string;
}

export interface TokenizerFile {
  /** Path of the tokenizer.json, and its text. */
  readonly path: string;
  readonly text: string;
  /** BPE, Unigram, WordPiece or WordLevel. */
  readonly type: string;
  /** Ids by token, added ones too, in the order of the ids. */
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
  /** Tokens of the model alone. */
  readonly modelTokens: number;
}

/** Reads the tokenizer.json of a folder. Throws a ModelError where there is none, or it is not one. */
export async function readTokenizerFile(dir: string): Promise<TokenizerFile> {
  const path = join(dir, "tokenizer.json");
  const text = await readTextIfAny(path);
  if (text === null)
    throw new ModelError(path, "no such file, needed to tell which token each row of the embedding is");
  const { model, added_tokens: added = [] } = parse(path, text);
  const type = isObject(model) && typeof model.type === "string" ? model.type : null;
  if (type === null || !isObject(model)) throw new ModelError(path, 'has no "model" with a type, expected a tokenizer');
  const ofModel = vocabularyOf(path, model.vocab);
  if (!Array.isArray(added) || !added.every(isAddedToken)) {
    throw new ModelError(path, '"added_tokens" is not a list of tokens with id and content');
  }
  const ids = new Map([...ofModel, ...added.map(({ content, id }) => [content, id] as const)]);
  const vocabulary = new Map([...ids].sort(([, a], [, b]) => a - b));
  checkIds(path, vocabulary);
  return { path, text, type, vocabulary, added, modelTokens: ofModel.length };
}

function parse(path: string, text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(path, `not valid JSON (${(error as Error).message})`, { cause: error });
  }
  if (isObject(value)) return value;
  throw new ModelError(path, `holds ${text.slice(0, 60)}, expected a JSON object`);
}

/** Unigram lists [token, score] by id; the others map tokens to ids. */
function vocabularyOf(path: string, vocab: unknown): (readonly [string, number])[] {
  const entries = Array.isArray(vocab)
    ? vocab.map((entry, id) => [Array.isArray(entry) ? entry[0] : entry, id] as const)
    : isObject(vocab)
      ? Object.entries(vocab)
      : null;
  if (entries?.every((entry): entry is [string, number] => typeof entry[0] === "string" && isId(entry[1]))) {
    return entries;
  }
  throw new ModelError(path, '"model.vocab" is neither a list of tokens nor a mapping from tokens to ids');
}

/** Two tokens of one id would share a row. */
function checkIds(path: string, vocabulary: ReadonlyMap<string, number>): void {
  let last: readonly [string, number] | null = null;
  for (const [token, id] of vocabulary) {
    if (last?.[1] === id) {
      throw new ModelError(path, `id ${id} is that of ${JSON.stringify(last[0])} and of ${JSON.stringify(token)}`);
    }
    last = [token, id];
  }
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const isAddedToken = (value: unknown): value is AddedToken =>
  isObject(value) && typeof value.content === "string" && isId(value.id);
