// The tensors of a model as sources of a merge: of a folder, its headers read, or of what a recipe makes.

import { join } from "node:path";
import type { Dtype } from "safetensors-ts";
import { type CheckpointTensor, isFloatDtype, openCheckpoint, SafetensorsError } from "safetensors-ts";
import { type Adapter, checkAdapterFits } from "../model/adapter.js";
import { ModelError } from "../model/errors.js";
import { type JsonObject, readJsonIfAny, readTextIfAny } from "../model/json.js";
import { layerOf } from "./groups.js";
import { withAdapter } from "./lora.js";
import type { Source, TensorPlace } from "./plan.js";

export interface ModelTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly source: Source;
  /** As in OutputTensor. */
  readonly sameAs?: readonly TensorPlace[];
}

/** A model that takes part in a merge. */
export interface ModelTensors {
  /** Path of the folder, or how the recipe calls it: for messages. */
  readonly path: string;
  /** In the order of the checkpoint. */
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  readonly layers: number;
  /** Its config.json, as text and as data. */
  readonly configText: string;
  readonly config: JsonObject;
}

/** Numbers of the files of a plan, given out as they are asked for. */
export interface FileNumbers {
  numberOf(path: string): number;
  readonly paths: readonly string[];
}

export function fileNumbers(): FileNumbers {
  const numbers = new Map<string, number>();
  return {
    numberOf(path) {
      const number = numbers.get(path) ?? numbers.size;
      numbers.set(path, number);
      return number;
    },
    get paths() {
      return [...numbers.keys()];
    },
  };
}

/** Reads config and headers of a model folder. A head that is tied to the embedding is no tensor of the model. */
export async function readModelTensors(path: string, files: FileNumbers): Promise<ModelTensors> {
  const configPath = join(path, "config.json");
  const configText = await readTextIfAny(configPath).catch(() => null);
  if (configText === null) throw new ModelError(path, "has no config.json, expected a model folder");
  const config = (await readJsonIfAny(configPath))!;
  // Its tensors are codes and tables, which mean nothing when they are averaged or rounded.
  if ((config.quantization_config ?? null) !== null) {
    const problem =
      'has a "quantization_config", expected a model whose weights are floats: take the one that it was made of';
    throw new ModelError(configPath, problem);
  }
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  const kept = checkpoint.tensors.filter(({ name }) => name !== HEAD || !isTied(config));
  const tensors = kept.map(({ name, dtype, shape, ...tensor }): [string, ModelTensor] => {
    const place = placeOf({ name, dtype, shape, ...tensor }, files);
    return [name, { name, dtype, shape, source: { kind: "tensor", place } }];
  });
  return { path, tensors: new Map(tensors), layers: countLayers(kept.map(({ name }) => name)), configText, config };
}

/** The model with an adapter on it. A tied head that the adapter changes becomes a tensor of its own. */
export function adaptModel(model: ModelTensors, adapter: Adapter, files: FileNumbers): ModelTensors {
  const { tensors: known } = adapter.updates.has(HEAD) || adapter.replaced.has(HEAD) ? withHead(model) : model;
  checkAdapterFits(adapter, model.path, (name) => known.get(name)?.shape);
  const file = files.numberOf(adapter.file);
  const tensors = [...known.values()].map((tensor): [string, ModelTensor] => {
    const { name, source } = tensor;
    return [name, { ...tensor, source: withAdapter(source, name, adapter, file) }];
  });
  return { ...model, tensors: new Map(tensors) };
}

export const HEAD = "lm_head.weight";

/** Whether the output head is the embedding. What transformers takes it for where the config does not say: true for Gemma. */
export const isTied = (config: JsonObject): boolean =>
  typeof config.tie_word_embeddings === "boolean"
    ? config.tie_word_embeddings
    : /^gemma/.test(String(config.model_type));

export const countLayers = (names: readonly string[]): number =>
  names.reduce((count, name) => Math.max(count, (layerOf(name)?.index ?? -1) + 1), 0);

function placeOf({ path, position, dtype, shape }: CheckpointTensor, files: FileNumbers): TensorPlace {
  return { file: files.numberOf(path), position, dtype, shape };
}

/** The embedding of tokens, which is the head, too, of a model that has none of its own. */
const EMBEDDING = /(^|\.)(embed_tokens|wte)\.weight$/;

/** Where some models have a head of their own, the others' is their embedding. */
export function withHeads(models: readonly ModelTensors[]): ModelTensors[] {
  const isAny = models.some(({ tensors }) => tensors.has(HEAD));
  return isAny ? models.map(withHead) : [...models];
}

/** A model that says it has a head of its own, and has none, is left so: it is broken. */
function withHead(model: ModelTensors): ModelTensors {
  const embedding = [...model.tensors.values()].find(({ name }) => EMBEDDING.test(name));
  if (model.tensors.has(HEAD) || !embedding || model.config.tie_word_embeddings === false) return model;
  return { ...model, tensors: new Map([...model.tensors, [HEAD, { ...embedding, name: HEAD }]]) };
}

/** Throws unless all models have the same tensors, in the same shapes, floats in the same places. */
export function checkSameTensors(models: readonly ModelTensors[]): void {
  const [first, ...others] = models as [ModelTensors, ...ModelTensors[]];
  for (const other of others) {
    for (const tensor of first.tensors.values()) checkTensor(first, other, tensor);
    for (const { name, shape } of other.tensors.values()) {
      if (first.tensors.has(name)) continue;
      const problem = `has a tensor "${name}" of shape [${shape}], which ${first.path} has not`;
      throw new SafetensorsError(other.path, problem, name);
    }
  }
}

function checkTensor(first: ModelTensors, other: ModelTensors, { name, dtype, shape }: ModelTensor): void {
  const found = other.tensors.get(name);
  if (!found) {
    throw new SafetensorsError(
      other.path,
      `has no tensor "${name}", which ${first.path} has in shape [${shape}]`,
      name,
    );
  }
  if (`${shape}` !== `${found.shape}`) {
    const hint = vocabularyHint(name, shape, found.shape);
    const problem = `tensor "${name}" has shape [${found.shape}], expected [${shape}] as in ${first.path}${hint}`;
    throw new SafetensorsError(other.path, problem, name);
  }
  if (isFloatDtype(dtype) !== isFloatDtype(found.dtype)) {
    throw new SafetensorsError(other.path, `tensor "${name}" is ${found.dtype}, and ${dtype} in ${first.path}`, name);
  }
}

/** Whether a tensor has a row for every token. */
export const hasVocabulary = (name: string): boolean => EMBEDDING.test(name) || name === HEAD;

/** What helps where tensors of two shapes differ in the number of tokens alone. */
export function vocabularyHint(name: string, a: readonly number[], b: readonly number[]): string {
  if (!hasVocabulary(name) || `${a.slice(1)}` !== `${b.slice(1)}`) return "";
  return "; with tokenizer_source: union, vocabularies may differ";
}
