// The tokenizer files of a merged model: those of its source, with tokens added to the vocabulary.
import { join } from "node:path";
import { ModelError } from "../model/errors.js";
import { type JsonObject, readJsonIfAny, readTextIfAny } from "../model/json.js";
import { withKey } from "./json-text.js";
import type { AddedToken, TokenizerFile } from "./tokenizer-file.js";

/** How a token that is added is found in texts; a token by its text alone is no special one, and is normalized as texts are. */
export interface NewToken extends JsonObject {
  readonly content: string;
}

export const plainToken = (content: string): NewToken => ({
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: true,
  special: false,
});

/**
 * The added tokens of a tokenizer and `tokens`, with the ids that Hugging Face's library gives them: those of the model's
 * vocabulary keep theirs, others come after all. Tokens that are added already stay as they are.
 */
export function addTokens(
  { path, vocabulary, added, modelTokens }: TokenizerFile,
  tokens: readonly NewToken[],
): AddedToken[] {
  const all = new Map(added.map((token) => [token.content, token]));
  let next = Math.max(modelTokens, ...added.map(({ id }) => id + 1));
  const taken = new Map([...vocabulary].map(([token, id]) => [id, token]));
  for (const token of tokens) {
    if (all.has(token.content)) continue;
    const known = vocabulary.get(token.content);
    const other = known === undefined ? taken.get(next) : undefined;
    if (other !== undefined) {
      const problem = `the ids have gaps: id ${next}, the next for a new token, is that of ${JSON.stringify(other)}; expected ids 0 to ${vocabulary.size - 1}`;
      throw new ModelError(path, problem);
    }
    const { content, ...settings } = token;
    all.set(content, { id: known ?? next++, content, ...settings });
  }
  return [...all.values()].sort((a, b) => a.id - b.id);
}

/** Texts of the files in `dir` that list added tokens, with those of `added` that are not in the tokenizer yet. */
export async function changedFiles(
  dir: string,
  tokenizer: TokenizerFile,
  added: readonly AddedToken[],
): Promise<Record<string, string>> {
  const before = new Set(tokenizer.added.map(({ content }) => content));
  const fresh = added.filter(({ content }) => !before.has(content));
  if (fresh.length === 0) return {};
  const files: Record<string, string> = { "tokenizer.json": withKey(tokenizer.text, "added_tokens", added) };
  const config = await readJsonIfAny(join(dir, "tokenizer_config.json"));
  if (config?.added_tokens_decoder) {
    const text = (await readTextIfAny(join(dir, "tokenizer_config.json")))!;
    const decoder = { ...(config.added_tokens_decoder as JsonObject) };
    for (const { id, ...token } of fresh) decoder[id] = token;
    files["tokenizer_config.json"] = withKey(text, "added_tokens_decoder", decoder);
  }
  let legacy = await readTextIfAny(join(dir, "added_tokens.json"));
  if (legacy !== null) {
    for (const { id, content } of fresh) legacy = withKey(legacy, content, id);
    files["added_tokens.json"] = legacy;
  }
  return files;
}
