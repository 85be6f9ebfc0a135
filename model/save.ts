/** Writes a Hugging Face model folder that transformers and vLLM load: weights, config, and the side files of its source. */
import { constants, copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fromFloat32, type StreamedTensor, writeCheckpoint, writeSafetensors } from "safetensors-ts";
import { PREFIX } from "./adapter.js";
import { ADAPTER_NAME } from "./adapter-config.js";
import { textConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { configWithDtype, type Dtype, type JsonObject } from "./json.js";
import { ADAPTER_CONFIG, ALL_LINEAR, type LoraSettings } from "./lora.js";
import { EMBEDDING, HEAD } from "./shapes.js";

/** Files of a model's tokenizer and chat template. */
export const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
] as const;

const GENERATION_CONFIG = "generation_config.json";

/** Files that belong to a model beside its config and weights. */
export const SIDE_FILES = [GENERATION_CONFIG, ...TOKENIZER_FILES] as const;

export const STORED_AS = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const;

/** Tensors to store, by name; `values` is read when they are. */
type HostTensors = Readonly<Record<string, { readonly shape: readonly number[]; readonly values: Float32Array }>>;

export interface SaveOptions {
  /** Folder whose config is taken over, but for the dtype, and whose generation_config.json is copied. */
  readonly from: string;
  /** Folder of tokenizer and chat template, all of whose files come from there. @default from */
  readonly tokenizerFrom?: string;
  /** What the weights are rounded to (to nearest even). */
  readonly dtype: Dtype;
}

/** Writes `dir`, whole or not at all. Weights above 5 GB go to shards; they are converted one tensor at a time. */
export async function saveModel(
  dir: string,
  weights: HostTensors,
  { from, tokenizerFrom = from, dtype }: SaveOptions,
): Promise<void> {
  const tensors = Object.entries(weights).map(([name, { shape, values }]): StreamedTensor => {
    const stored = STORED_AS[dtype];
    return { name, dtype: stored, shape, chunks: () => [fromFloat32(values, stored)] };
  });
  await replaceFolder(dir, async (partial) => {
    await copySideFiles(from, partial, [GENERATION_CONFIG]);
    await copySideFiles(tokenizerFrom, partial, TOKENIZER_FILES);
    await writeFile(join(partial, "config.json"), configWithDtype(await textConfigOf(from), dtype));
    await writeCheckpoint(partial, tensors);
  });
}

/** The text of a folder's config.json; of a model that sees images as well, that of its text part. */
async function textConfigOf(dir: string): Promise<string> {
  const path = join(dir, "config.json");
  const text = await readFile(path, "utf8");
  const whole = JSON.parse(text) as JsonObject;
  const config = textConfig(path, whole);
  return config === whole ? text : `${JSON.stringify(config, null, 2)}\n`;
}

export interface SaveAdapterOptions {
  /** Folder of the base, whose tokenizer and chat template are copied. */
  readonly from: string;
  readonly lora: LoraSettings;
  readonly base: AdapterBase;
}

/** What an adapter calls its base: a folder, or a model of the hub and its commit. */
export type AdapterBase = { readonly name: string; readonly revision: string | null };

/** Writes an adapter by the names that its tensors have beside the model's into the folder `dir`, as PEFT does. */
export async function saveAdapter(
  dir: string,
  weights: HostTensors,
  { from, lora, base }: SaveAdapterOptions,
): Promise<void> {
  await mkdir(dir, { recursive: true });
  await copySideFiles(from, dir, TOKENIZER_FILES);
  await writeFile(
    join(dir, ADAPTER_CONFIG),
    `${JSON.stringify(adapterConfig(lora, base, EMBEDDING in weights), null, 2)}\n`,
  );
  // PEFT stores what is tied to the embedding as well.
  const head = weights[EMBEDDING];
  const stored = Object.entries({ ...weights, ...(head ? { [HEAD]: head } : {}) });
  const tensors = stored.map(([name, tensor]): StreamedTensor => {
    const { shape } = tensor;
    return { name: `${PREFIX}${name}`, dtype: "F32", shape, chunks: () => [fromFloat32(tensor.values, "F32")] };
  });
  await writeSafetensors(join(dir, ADAPTER_NAME), tensors, { format: "pt" });
}

/** Of PEFT's keys those that say something. A base whose head is its embedding keeps them tied. */
const adapterConfig = (lora: LoraSettings, { name, revision }: AdapterBase, storesEmbedding: boolean) => ({
  peft_type: "LORA",
  task_type: "CAUSAL_LM",
  base_model_name_or_path: name,
  revision,
  inference_mode: true,
  ...lora,
  target_modules: lora.target_modules === "all-linear" ? ALL_LINEAR : lora.target_modules,
  modules_to_save: lora.modules_to_save.length === 0 ? null : lora.modules_to_save,
  bias: "none",
  fan_in_fan_out: false,
  init_lora_weights: true,
  use_dora: false,
  rank_pattern: {},
  alpha_pattern: {},
  ...(storesEmbedding ? { ensure_weight_tying: true } : {}),
});

/** Copies those of the files, all of SIDE_FILES if none are named, that `from` has. */
export async function copySideFiles(from: string, to: string, names: readonly string[] = SIDE_FILES): Promise<void> {
  const present = new Set(await readdir(from));
  for (const name of names) {
    if (present.has(name)) await copyFile(join(from, name), join(to, name), constants.COPYFILE_FICLONE);
  }
}

export interface ReplaceOptions {
  /** Go on in the sibling that a killed or interrupted process has left, if there is one. @default false: start anew */
  readonly resume?: boolean;
  /** Whether the sibling is kept after this error, to go on from. @default never */
  readonly isKeptAfter?: (error: unknown) => boolean;
}

/**
 * Lets `write` fill a sibling folder, `.NAME.partial`, that then becomes `dir`. If `write` fails, or the process is
 * killed within it, `dir` is untouched. Replaced are folders of models and adapters, and empty ones; anything else is a ModelError.
 */
export async function replaceFolder(
  dir: string,
  write: (partial: string) => Promise<void>,
  { resume = false, isKeptAfter = () => false }: ReplaceOptions = {},
): Promise<void> {
  const isReplaced = await mayReplace(dir);
  const [partial, old] = [siblingFolder(dir, "partial"), siblingFolder(dir, "old")];
  if (!resume) await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  try {
    await write(partial);
  } catch (error) {
    if (!isKeptAfter(error)) await rm(partial, { recursive: true, force: true });
    throw error;
  }
  if (isReplaced) {
    await rm(old, { recursive: true, force: true });
    await rename(dir, old);
  }
  await rename(partial, dir);
  await rm(old, { recursive: true, force: true });
}

/** The folder beside `dir` in which it is made ("partial"), or moved aside ("old"). */
export const siblingFolder = (dir: string, ending: "partial" | "old"): string =>
  join(dirname(resolve(dir)), `.${basename(resolve(dir))}.${ending}`);

/** Whether there is a folder `dir` that a model may take the place of. @throws ModelError where something else is there */
export async function mayReplace(dir: string): Promise<boolean> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return false;
    if (code === "ENOTDIR") throw new ModelError(dir, "is a file, expected a folder or a new name", { cause: error });
    throw error;
  }
  if (names.length > 0 && !names.includes("config.json") && !names.includes(ADAPTER_CONFIG)) {
    throw new ModelError(dir, "holds other files than a model; give a new or an empty folder");
  }
  return true;
}
