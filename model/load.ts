/** A model folder, opened without TensorFlow: config, tokenizer, chat template, stop tokens. Weights: see weights.ts. */
import { join } from "node:path";
import { type Chat, loadChat } from "./chat.js";
import type { Compute } from "./compute.js";
import { computedAs, type ModelConfig, readModelConfig } from "./config.js";
import { ID_OR_LIST, idList } from "./config-keys.js";
import { ModelError } from "./errors.js";
import { readJsonIfAny } from "./json.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";

export interface ModelFolder {
  readonly dir: string;
  readonly config: ModelConfig;
  /** null where the folder has none: such a model scores and continues token ids. */
  readonly tokenizer: Tokenizer | null;
  readonly chat: Chat;
  /** Tokens that end a completion, ascending. */
  readonly stopIds: readonly number[];
}

export async function openModel(dir: string, compute: Partial<Compute> = {}): Promise<ModelFolder> {
  const config = computedAs(await readModelConfig(dir), compute);
  const tokenizer = await loadTokenizer(dir);
  const chat = await loadChat(dir, tokenizer);
  return {
    dir,
    config,
    tokenizer,
    chat,
    stopIds: await stopIds(dir, config, tokenizer),
  };
}

/** `eos_token_id` of config.json and generation_config.json, and `<end_of_turn>` if the vocabulary has it. */
async function stopIds(dir: string, config: ModelConfig, tokenizer: Tokenizer | null): Promise<number[]> {
  const path = join(dir, "generation_config.json");
  const eos = (await readJsonIfAny(path))?.eos_token_id ?? null;
  const generation = idList(eos);
  if (!generation) throw new ModelError(path, `"eos_token_id" is ${JSON.stringify(eos)}, expected ${ID_OR_LIST}`);
  const endOfTurn = tokenizer?.idOf("<end_of_turn>") ?? null;
  const ids = new Set([...config.eosTokenIds, ...generation, ...(endOfTurn === null ? [] : [endOfTurn])]);
  return [...ids].sort((a, b) => a - b);
}
