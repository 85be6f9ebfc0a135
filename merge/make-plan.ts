// From a recipe to a plan: which tensors the result has, what each is made of, and the config that goes with them.
import { isFloatDtype, SafetensorsError } from "safetensors-ts";
import { ModelError } from "../model/errors.js";
import type { Dtype, JsonObject } from "../model/json.js";
import { layerOf } from "./groups.js";
import { openAdapter } from "./lora.js";
import { makeTensor, type OpenedSource, type SliceWork, withLayer } from "./make-tensor.js";
import {
  adaptModel,
  checkSameTensors,
  countLayers,
  type FileNumbers,
  fileNumbers,
  HEAD,
  isTied,
  type ModelTensor,
  type ModelTensors,
  readModelTensors,
  withHeads,
} from "./model-tensors.js";
import { changeConfig, layerTypes } from "./output-config.js";
import type { OutputTensor, Plan } from "./plan.js";
import type { ModelReference, Recipe } from "./recipe.js";
import { isSameModel } from "./recipe-models.js";
import type { TokenizerPlan } from "./tokenizer-plan.js";
import { withVocabulary } from "./vocabulary.js";
import { commonDtype, storedDtype } from "./warp.js";

export interface MergePlan {
  readonly plan: Plan;
  /** Text of config.json. */
  readonly config: string;
  /** Folder whose tokenizer, generation config and so on go into the result. */
  readonly sideFilesFrom: string;
  /** The vocabulary that the recipe asks for; null where it is that of `sideFilesFrom`. */
  readonly tokenizer: TokenizerPlan | null;
  /** Folders of models and adapters that are read, as the recipe calls them. */
  readonly models: readonly string[];
}

/** Opens the headers of all models of the recipe and checks them against each other. No tensor is read. */
export async function makePlan(recipe: Recipe, { seed }: { readonly seed: number }): Promise<MergePlan> {
  const files = fileNumbers();
  const opened = new Map<string, Promise<ModelTensors>>();
  const adapters = new Set<string>();
  const context: Context = { seed, files, opened, adapters, nextMerge: 0 };
  const { tensors: made, configText, config, path, tokenizer } = await planRecipe(recipe, context);
  const tensors = [...made.values()].map((tensor) => outputTensor(tensor, recipe.dtype));
  const vocabSize = tokenizer?.vocabSize ?? null;
  const changes = { dtype: commonDtype(tensors), layers: null, isTied: null, vocabSize };
  return {
    plan: { files: files.paths, tensors },
    config: changeConfig(configText, config, changes, path),
    sideFilesFrom: path,
    tokenizer,
    models: [...opened.keys(), ...adapters],
  };
}

function outputTensor({ name, dtype, shape, source, sameAs }: ModelTensor, wanted: Dtype | null): OutputTensor {
  if (!isFloatDtype(dtype)) return { name, dtype, shape, source, sameAs: sameAs ?? [] };
  return { name, dtype: storedDtype(dtype, wanted ?? "input"), shape, source };
}

interface Context {
  readonly seed: number;
  readonly files: FileNumbers;
  readonly opened: Map<string, Promise<ModelTensors>>;
  readonly adapters: Set<string>;
  nextMerge: number;
}

async function openModel(model: ModelReference, context: Context): Promise<ModelTensors> {
  if (model.kind === "recipe") return planRecipe(model.recipe, context);
  const { path, adapter } = model;
  const known = context.opened.get(path) ?? readModelTensors(path, context.files);
  context.opened.set(path, known);
  if (adapter === null) return known;
  context.adapters.add(adapter);
  return adaptModel(await known, await openAdapter(adapter), context.files);
}

/** What a recipe makes: a model that others can be made of. */
interface MadeModel extends ModelTensors {
  readonly tokenizer: TokenizerPlan | null;
}

async function planRecipe(recipe: Recipe, context: Context): Promise<MadeModel> {
  const merge = context.nextMerge++;
  const { base, slices } = recipe;
  const opened: { readonly reference: ModelReference; readonly model: ModelTensors }[] = [];
  for (const reference of [base, ...slices.flatMap(({ sources }) => sources.map(({ model }) => model))]) {
    if (reference === null || opened.some((other) => isSameModel(reference, other.reference))) continue;
    opened.push({ reference, model: await openModel(reference, context) });
  }
  const withHead = withHeads(opened.map(({ model }) => model));
  const references = opened.map(({ reference }) => reference);
  const { models, tokenizer } =
    recipe.tokenizer === null
      ? { models: withHead, tokenizer: null }
      : await withVocabulary(recipe.tokenizer, withHead, references, base === null ? null : 0);
  const modelOf = (reference: ModelReference) =>
    models[opened.findIndex((other) => isSameModel(reference, other.reference))]!;
  checkFamilies(models);
  if (!recipe.isSliced) checkSameTensors(models);

  const works = slices.map((slice): SliceWork => {
    const sources = slice.sources.map((source): OpenedSource => {
      const model = modelOf(source.model);
      const range = source.layerRange ?? [0, model.layers];
      if (range[1] > model.layers) throw tooFewLayers(model, range);
      const isBase = base !== null && isSameModel(source.model, base);
      return { model, range, parameters: source.parameters, isBase };
    });
    const [begin, end] = sources[0]!.range;
    const layers = end - begin;
    return { recipe, merge, slice, sources, base: base && modelOf(base), seed: context.seed, layers };
  });
  const tensors = stackSlices(works);
  const { path, configText, config } = works[0]!.base ?? works[0]!.sources[0]!.model;
  const hasNewHead = withHead.some((model, i) => model !== opened[i]!.model) && config.tie_word_embeddings !== false;
  const changes = {
    dtype: null,
    layers: recipe.isSliced ? layersOf(works) : null,
    isTied: tensors.has(HEAD) && (isTied(config) || hasNewHead) ? false : null,
    vocabSize: null,
  };
  const changed = changeConfig(configText, config, changes, path);
  return {
    path,
    tensors,
    layers: countLayers([...tensors.keys()]),
    configText: changed,
    config: JSON.parse(changed) as JsonObject,
    tokenizer,
  };
}

/** The tensors of all slices, by name, the layers numbered through. */
function stackSlices(works: readonly SliceWork[]): Map<string, ModelTensor> {
  const made = new Map<string, ModelTensor>();
  let firstLayer = 0;
  for (const [i, work] of works.entries()) {
    const place = { isFirst: i === 0, isLast: i === works.length - 1 };
    const first = work.sources[0]!;
    for (const name of first.model.tensors.keys()) {
      if (!isInSlice(name, first, place)) continue;
      const index = layerOf(name)?.index;
      const layer = index === undefined ? null : index - first.range[0];
      const target = layer === null ? name : withLayer(name, firstLayer + layer);
      made.set(target, makeTensor(name, layer, target, work));
    }
    checkNoneIsLeft(work, place);
    firstLayer += work.layers;
  }
  return made;
}

interface SlicePlace {
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

/** Whether a slice takes a tensor of a source: of its layers, embeddings if it is the first, what follows the layers if the last. */
function isInSlice(name: string, { range: [begin, end] }: OpenedSource, { isFirst, isLast }: SlicePlace): boolean {
  const index = layerOf(name)?.index;
  if (index === undefined) return isBeforeLayers(name) ? isFirst : isLast;
  return index >= begin && index < end;
}

/** Embeddings of tokens and positions; the head of GPT-NeoX, embed_out, is none. */
const isBeforeLayers = (name: string): boolean => /embed(?!_out\b)|\bwte\b|\bwpe\b/.test(name);

/** Throws where another source has a tensor that the first has not: it would be dropped. */
function checkNoneIsLeft({ sources: [first, ...others] }: SliceWork, place: SlicePlace): void {
  const { model, range } = first!;
  for (const other of others) {
    for (const { name, shape } of other.model.tensors.values()) {
      if (!isInSlice(name, other, place)) continue;
      const index = layerOf(name)?.index;
      const own = index === undefined ? name : withLayer(name, index - other.range[0] + range[0]);
      if (model.tensors.has(own)) continue;
      const problem = `has a tensor "${name}" of shape [${shape}], and ${model.path} has no "${own}" to merge it with`;
      throw new SafetensorsError(other.model.path, problem, name);
    }
  }
}

/** How many layers the slices make, and the type of each, which is that of the layer in its slice's first source. */
function layersOf(works: readonly SliceWork[]): { readonly count: number; readonly types: readonly string[] | null } {
  const types = works.map(({ sources }) => {
    const { model, range } = sources[0]!;
    return layerTypes(model.config, model.layers)?.slice(...range) ?? null;
  });
  const count = works.reduce((sum, { layers }) => sum + layers, 0);
  const without = types.indexOf(null);
  if (without < 0) return { count, types: types.flatMap((type) => type ?? []) };
  const having = types.findIndex((type) => type !== null);
  if (having < 0) return { count, types: null };
  const [lacking, other] = [works[without]!, works[having]!].map(({ sources }) => sources[0]!.model.path);
  throw new ModelError(lacking!, `config.json has no layer_types, which ${other}'s has: expected them in both`);
}

function tooFewLayers({ path, layers }: ModelTensors, [begin, end]: readonly [number, number]): ModelError {
  return new ModelError(path, `has ${layers} layers, expected ${end} or more for layer_range [${begin}, ${end}]`);
}

/** Models of one merge must be of one family: equal names and shapes may mean other things. */
function checkFamilies([first, ...others]: readonly ModelTensors[]): void {
  for (const { path, config } of others) {
    if (config.model_type === first!.config.model_type) continue;
    const problem = `config.json has model_type ${JSON.stringify(config.model_type)}, and ${JSON.stringify(first!.config.model_type)} in ${first!.path}`;
    throw new ModelError(path, problem);
  }
}
