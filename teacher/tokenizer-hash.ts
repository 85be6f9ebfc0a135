/** Whether two models mean the same by their token ids. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { ModelError } from "../model/errors.js";
import { readJsonIfAny } from "../model/json.js";

/** The parts of tokenizer.json that give ids to tokens. Unigram models hold a list of [token, score]. */
type TokenizerJson = {
  model?: { vocab?: Record<string, number> | [string, number][] };
  added_tokens?: { id: number; content: string }[];
};

/**
 * sha256, in hexadecimal, of the table from ids to tokens in a model folder's tokenizer.json; null where there is none.
 * Not of the file: the same tokenizer saved by two versions of transformers differs in its bytes.
 */
export async function tokenizerSha256(modelDir: string): Promise<string | null> {
  const path = join(modelDir, "tokenizer.json");
  const json = (await readJsonIfAny(path)) as TokenizerJson | null;
  if (json === null) return null;
  const { model, added_tokens: addedTokens = [] } = json;
  const vocab = model?.vocab;
  if (!vocab) throw new ModelError(path, "no model.vocab, expected the tokenizer.json of a Hugging Face tokenizer");
  const tokens = new Map<number, string>(
    Array.isArray(vocab)
      ? vocab.map(([token], id) => [id, token])
      : Object.entries(vocab).map(([token, id]) => [id, token]),
  );
  for (const { id, content } of addedTokens) tokens.set(id, content);
  const hash = createHash("sha256");
  for (const id of [...tokens.keys()].sort((a, b) => a - b)) hash.update(`${JSON.stringify([id, tokens.get(id)])}\n`);
  return hash.digest("hex");
}
