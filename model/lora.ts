/**
 * Low-rank adapters (LoRA, arXiv 2106.09685) beside a model's weights: x W^T + scale (x A^T) B^T. Of a weight
 * "MODULE.weight" [out, in] they are tensors of the same record, "MODULE.lora_A.weight" [r, in], "MODULE.lora_B.weight"
 * [out, r] and "MODULE.lora_scale.weight", a scalar. Imports no TensorFlow, so that plans need none.
 */
import { join } from "node:path";
import { type Adapter, checkAdapterFits, openAdapter } from "./adapter.js";
import { readAdapterConfig } from "./adapter-config.js";
import type { ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { isFile } from "./json.js";
import { EMBEDDING, parameterShapes, textName } from "./shapes.js";

/** The parts of an adapter, as the end of a module's name. */
export const LORA_PARTS = { a: "lora_A", b: "lora_B", scale: "lora_scale" } as const;

/** The names of the tensors that are added to a weight. */
export function loraNames(weight: string): { readonly a: string; readonly b: string; readonly scale: string } {
  const of = (part: string) => weight.replace(/weight$/, `${part}.weight`);
  return { a: of(LORA_PARTS.a), b: of(LORA_PARTS.b), scale: of(LORA_PARTS.scale) };
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
  const isAdapter = (await isFile(join(dir, ADAPTER_CONFIG))) && !(await isFile(join(dir, "config.json")));
  if (!isAdapter) return { dir, adapter };
  if (adapter !== null) {
    throw new ModelError(dir, `is an adapter itself, expected the model folder that the adapter ${adapter} is for`);
  }
  const { path, base } = await readAdapterConfig(dir);
  if (base === null) {
    throw new ModelError(
      path,
      'names no "base_model_name_or_path": give the model folder and the adapter each by itself',
    );
  }
  for (const found of [join(dir, base), base]) {
    if (await isFile(join(found, "config.json"))) return { dir: found, adapter: dir };
  }
  const missing = `"base_model_name_or_path" is ${JSON.stringify(base)}, which is no model folder, seen from the adapter nor from here`;
  throw new ModelError(path, `${missing}: give the model folder and the adapter each by itself`);
}

export const ADAPTER_CONFIG = "adapter_config.json";

/** An adapter by the names of the text model, checked against its shapes. */
export async function openAdapterFor(path: string, model: string, config: ModelConfig): Promise<Adapter> {
  const adapter = await openAdapter(path);
  const named = <T>(tensors: ReadonlyMap<string, T>) =>
    new Map([...tensors].map(([name, tensor]) => [textName(name) ?? name, tensor]));
  const own = { ...adapter, updates: named(adapter.updates), replaced: named(adapter.replaced) };
  const shapes = parameterShapes(config);
  checkAdapterFits(own, model, (name) => shapes[name]);
  const vector = [...own.updates.keys()].find((name) => !isLayerMatrix(name));
  if (vector !== undefined) {
    throw new ModelError(own.file, `has a LoRA of "${vector}", expected projections of the layers only`);
  }
  if (own.replaced.has(EMBEDDING) && !own.config.isTied) {
    const head = "the head would keep the base's embedding, which is not supported";
    throw new ModelError(own.file, `stores "${EMBEDDING}" whole, and "ensure_weight_tying" is not true: ${head}`);
  }
  return own;
}

/** Whether a weight is a matrix of a layer: what "all-linear" means. */
export const isLayerMatrix = (weight: string): boolean =>
  /^model\.layers\.\d+\.(self_attn|mlp)\.[a-z]+_proj\.weight$/.test(weight);
