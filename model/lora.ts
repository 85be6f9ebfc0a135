/**
 * Low-rank adapters (LoRA, arXiv 2106.09685) beside a model's weights: x W^T + scale (x A^T) B^T. Of a weight
 * "MODULE.weight" [out, in] they are tensors of the same record, "MODULE.lora_A.weight" [r, in], "MODULE.lora_B.weight"
 * [out, r] and "MODULE.lora_scale.weight", a scalar. Imports no TensorFlow, so that plans need none.
 */
import { join } from "node:path";
import { openSafetensors } from "safetensors-ts";
import { type Adapter, checkAdapterFits, openAdapter } from "./adapter.js";
import { readAdapterConfig } from "./adapter-config.js";
import type { ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { isFile } from "./json.js";
import { EMBEDDING, HEAD, parameterShapes, SCORE, textName } from "./shapes.js";

/** The parts of an adapter, as the end of a module's name. */
export const LORA_PARTS = {
  a: "lora_A",
  b: "lora_B",
  scale: "lora_scale",
  /** In a training step with dropout: seed and counter of its random numbers, int32 [2], and the share that is kept. */
  random: "lora_random",
  keep: "lora_keep",
} as const;

/** The names of the tensors that are added to a weight. */
export function loraNames(weight: string): Record<keyof typeof LORA_PARTS, string> {
  const of = (part: keyof typeof LORA_PARTS) => weight.replace(/weight$/, `${LORA_PARTS[part]}.weight`);
  return { a: of("a"), b: of("b"), scale: of("scale"), random: of("random"), keep: of("keep") };
}

/** Whether a tensor is a matrix of an adapter. */
export const isLoraMatrix = (tensor: string): boolean => /\.lora_[AB]\.weight$/.test(tensor);

/** A model folder, and the folder of an adapter on it, if any. */
export type ModelPlaces = { readonly dir: string; readonly adapter: string | null };

/**
 * Which folders a model argument names: a model folder, with an adapter or without, or an adapter's folder, whose base is
 * looked for relative to it and then to the working directory.
 */
export async function placesOf(dir: string, adapter: string | null = null): Promise<ModelPlaces> {
  if (!(await isAdapterAlone(dir))) return { dir, adapter };
  if (adapter !== null) {
    throw new ModelError(dir, `is an adapter itself, expected the model folder that the adapter ${adapter} is for`);
  }
  const { path, base, baseRevision } = await readAdapterConfig(dir);
  if (base === null) {
    throw new ModelError(
      path,
      'names no "base_model_name_or_path": give the model folder and the adapter each by itself',
    );
  }
  const found = await localBase(dir, base);
  if (found !== null) return { dir: found, adapter: dir };
  const missing = `"base_model_name_or_path" is ${JSON.stringify(base)}, which is no model folder, seen from the adapter nor from here`;
  const pinned = baseRevision === null ? base : `${base}@${baseRevision}`;
  const pull = /^[\w.-]+\/[\w.-]+$/.test(base) ? `, or: heddle pull ${pinned} --out ${base}` : "";
  throw new ModelError(path, `${missing}: give the model folder and the adapter each by itself${pull}`);
}

export const ADAPTER_CONFIG = "adapter_config.json";

/** Whether a folder is an adapter's, and no model's. */
export const isAdapterAlone = async (dir: string): Promise<boolean> =>
  (await isFile(join(dir, ADAPTER_CONFIG))) && !(await isFile(join(dir, "config.json")));

/** The folder of the base that an adapter's folder `dir` names, or null where there is none on this machine. */
export async function localBase(dir: string, base: string): Promise<string | null> {
  for (const found of [join(dir, base), base]) {
    if (await isFile(join(found, "config.json"))) return found;
  }
  return null;
}

/**
 * An adapter by the names of the text model, checked against its shapes, and the config of both together: a `score` head that
 * the adapter stores makes a classifier of a language model, as PEFT's SEQ_CLS does.
 */
export async function openAdapterFor(
  path: string,
  model: string,
  ofBase: ModelConfig,
): Promise<{ adapter: Adapter; config: ModelConfig }> {
  const adapter = await openAdapter(path);
  const named = <T>(tensors: ReadonlyMap<string, T>) =>
    new Map([...tensors].map(([name, tensor]) => [textName(name) ?? name, tensor]));
  const replaced = named(adapter.replaced);
  const addsHead = ofBase.numLabels === null && replaced.has(SCORE);
  const config = addsHead ? { ...ofBase, numLabels: replaced.get(SCORE)!.shape[0]! } : ofBase;
  const own = { ...adapter, updates: named(adapter.updates), replaced, addsHead };
  const shapes = parameterShapes(config);
  checkAdapterFits(own, model, (name) => shapes[name === HEAD ? EMBEDDING : name]);
  const vector = [...own.updates.keys()].find((name) => !isLayerMatrix(name));
  if (vector !== undefined) {
    throw new ModelError(own.file, `has a LoRA of "${vector}", expected projections of the layers only`);
  }
  if (own.replaced.has(EMBEDDING) && !own.config.isTied) {
    const head = "the head would keep the base's embedding, which is not supported";
    throw new ModelError(own.file, `stores "${EMBEDDING}" whole, and "ensure_weight_tying" is not true: ${head}`);
  }
  await checkHead(own);
  own.replaced.delete(HEAD);
  return { adapter: own, config };
}

/** PEFT stores a tied head as well; another head would be another model. */
async function checkHead({ file: path, replaced }: Adapter): Promise<void> {
  const [head, embedding] = [replaced.get(HEAD), replaced.get(EMBEDDING)];
  if (!head) return;
  const file = await openSafetensors(path);
  try {
    const isSame = embedding && Buffer.compare(await file.read(head.name), await file.read(embedding.name)) === 0;
    if (isSame) return;
    throw new ModelError(path, `stores "${HEAD}", expected the values of "${EMBEDDING}", stored too (a tied head)`);
  } finally {
    await file.close();
  }
}

/** What an adapter that is trained looks like; names and meanings are those of PEFT's LoraConfig. */
export type LoraSettings = {
  readonly r: number;
  readonly lora_alpha: number;
  /** Share of the inputs of A that is left out in training. */
  readonly lora_dropout: number;
  /** Names of modules, or ends of them from a dot on; "all-linear" is all projections of the layers. */
  readonly target_modules: "all-linear" | readonly string[];
  readonly use_rslora: boolean;
  /** Ends of names of modules that learn themselves. */
  readonly modules_to_save: readonly string[];
};

/** What B A is multiplied by: alpha / r, or alpha / sqrt(r) where rank-stabilised (arXiv 2312.03732). */
export const loraScale = ({ r, lora_alpha, use_rslora }: LoraSettings): number =>
  lora_alpha / (use_rslora ? Math.sqrt(r) : r);

const moduleOf = (weight: string): string => weight.replace(/\.weight$/, "");

/**
 * The weights that an adapter is for, by name.
 * @throws ModelError if a target matches none
 */
export function loraTargets(config: ModelConfig, { target_modules: targets }: LoraSettings): string[] {
  const weights = Object.keys(parameterShapes(config)).filter(isLayerMatrix);
  if (targets === "all-linear") return weights;
  const matches = (weight: string, target: string) => `.${moduleOf(weight)}`.endsWith(`.${target}`);
  checkAllMatch("target_modules", targets, weights, matches);
  return weights.filter((weight) => targets.some((target) => matches(weight, target)));
}

/**
 * The weights that learn themselves beside an adapter, by name.
 * @throws ModelError if an entry matches none, or what has a LoRA already
 */
export function savedWeights(names: readonly string[], { modules_to_save: ends }: LoraSettings): string[] {
  const weights = names.filter((name) => !name.includes(".lora_") && !isLayerMatrix(name));
  const matches = (weight: string, end: string) => moduleOf(weight).endsWith(end);
  checkAllMatch("modules_to_save", ends, weights, matches);
  return weights.filter((weight) => ends.some((end) => matches(weight, end)));
}

function checkAllMatch(
  key: string,
  wanted: readonly string[],
  weights: readonly string[],
  matches: (weight: string, end: string) => boolean,
): void {
  const unused = wanted.find((end) => !weights.some((weight) => matches(weight, end)));
  if (unused === undefined) return;
  const ends = [...new Set(weights.map((weight) => moduleOf(weight).split(".").at(-1)))].join(", ");
  throw new ModelError(`lora.${key}`, `no module's name ends with ${JSON.stringify(unused)}, expected some of ${ends}`);
}

/** The shapes of an adapter's matrices, by name. */
export function loraShapes(config: ModelConfig, settings: LoraSettings): Record<string, number[]> {
  const shapes = parameterShapes(config);
  return Object.fromEntries(
    loraTargets(config, settings).flatMap((weight) => {
      const [rows, columns] = shapes[weight] as [number, number];
      const { a, b } = loraNames(weight);
      return [
        [a, [settings.r, columns]],
        [b, [rows, settings.r]],
      ];
    }),
  );
}

/** The projections of a layer: what "all-linear" means. */
export const ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

export const isLayerMatrix = (weight: string): boolean => /^model\.layers\.\d+\..+_proj\.weight$/.test(weight);
