// From a recipe to a plan: which tensors the result has, what each is made of, and the config that goes with them.
import { isFloatDtype } from "safetensors-ts";
import { openAdapter } from "../model/adapter.js";
import { ModelError } from "../model/errors.js";
import type { Dtype, JsonObject } from "../model/json.js";
import type { OpenedSource, SliceWork } from "./make-tensor.js";
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
import { changeConfig } from "./output-config.js";
import type { OutputTensor, Plan } from "./plan.js";
import type { ModelReference, Recipe } from "./recipe.js";
import { withFolders } from "./recipe-folders.js";
import { isSameModel } from "./recipe-models.js";
import { layersOf, stackSlices } from "./stack-slices.js";
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

export interface PlanOptions {
  /** What random methods draw from. */
  readonly seed: number;
  /** The folder of what a recipe calls a model, or the name itself. @default from the hub, where it is org/name */
  readonly findModel?: (name: string) => Promise<string>;
}

/** Opens the headers of all models of the recipe and checks them against each other. No tensor is read. */
export async function makePlan(written: Recipe, { seed, findModel }: PlanOptions): Promise<MergePlan> {
  const recipe = await withFolders(written, findModel);
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

/** What a recipe makes. */
interface MadeModel extends ModelTensors {
  readonly tokenizer: TokenizerPlan | null;
}

/** What a recipe makes: a model that others can be made of. */
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
