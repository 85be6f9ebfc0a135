/** A model folder, with or without an adapter, opened without TensorFlow: config, tokenizer, chat template, stop tokens. Weights: see weights.ts. */
import { join } from "node:path";
import type { Adapter } from "./adapter.js";
import { type Chat, loadChat } from "./chat.js";
import type { Compute } from "./compute.js";
import { computedAs, type ModelConfig, readModelConfig } from "./config.js";
import { ID_OR_LIST, idList } from "./config-keys.js";
import { ModelError } from "./errors.js";
import { isFile, readJsonIfAny } from "./json.js";
import { openAdapterFor, placesOf } from "./lora.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";

export interface ModelFolder {
  readonly dir: string;
  /** What is added to its weights, or takes their place. */
  readonly adapter: Adapter | null;
  readonly config: ModelConfig;
  /** Folder of tokenizer and chat template: the adapter's where it has a tokenizer. */
  readonly tokenizerDir: string;
  /** null where the folder has none: such a model scores and continues token ids. */
  readonly tokenizer: Tokenizer | null;
  readonly chat: Chat;
  /** Tokens that end a completion, ascending. */
  readonly stopIds: readonly number[];
}

/** What of a model its weights are loaded by, and where its tokenizer is. */
export type OpenedWeights = Pick<ModelFolder, "dir" | "adapter" | "config" | "tokenizerDir">;

/** openFolder, of a language model. */
export const openModel = async (
  model: string,
  compute: Partial<Compute> = {},
  adapterDir: string | null = null,
): Promise<ModelFolder> => languageModel(await openFolder(model, compute, adapterDir));

/** What was opened. @throws ModelError where it, or the adapter on it, is a model for sequence classification */
export function languageModel<M extends OpenedWeights>(opened: M): M {
  const { dir, adapter, config } = opened;
  if (config.numLabels === null) return opened;
  const [file, says] = adapter?.addsHead
    ? [adapter.file, "holds the head of"]
    : [join(dir, "config.json"), "describes"];
  throw new ModelError(
    file,
    `${says} a model for sequence classification (${config.numLabels} labels), expected a language model; \`heddle score\` takes both`,
  );
}

/** Opens a model folder, also with an adapter on it, or an adapter's folder (`placesOf`). */
export async function openFolder(
  model: string,
  compute: Partial<Compute> = {},
  adapterDir: string | null = null,
): Promise<ModelFolder> {
  const weights = await openWeights(model, compute, adapterDir);
  const { dir, config, tokenizerDir } = weights;
  const tokenizer = await loadTokenizer(tokenizerDir, config.vocabSize);
  const chat = await loadChat(tokenizerDir, tokenizer);
  return { ...weights, tokenizer, chat, stopIds: await stopIds(dir, config, tokenizer) };
}

/** Opens what a model is loaded by, of any kind; arguments as of openModel. */
export async function openWeights(
  model: string,
  compute: Partial<Compute> = {},
  adapterDir: string | null = null,
): Promise<OpenedWeights> {
  const { dir, adapter } = await placesOf(model, adapterDir);
  const ofBase = computedAs(await readModelConfig(dir), compute);
  if (adapter === null) return { dir, adapter: null, config: ofBase, tokenizerDir: dir };
  const tokenizerDir = (await isFile(join(adapter, "tokenizer.json"))) ? adapter : dir;
  return { dir, ...(await openAdapterFor(adapter, dir, ofBase)), tokenizerDir };
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
