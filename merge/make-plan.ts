// From a recipe to a plan: which tensors the result has, what each is made of, and the config that goes with them.
import { isFloatDtype, SafetensorsError } from "safetensors-ts";
import { ModelError } from "../model/errors.js";
import type { Dtype } from "../model/json.js";
import { layerOf } from "./groups.js";
import type { Settings } from "./method.js";
import { METHODS } from "./methods.js";
import {
  checkSameTensors,
  countLayers,
  embeddingOf,
  type FileNumbers,
  fileNumbers,
  HEAD,
  isTied,
  type ModelTensor,
  type ModelTensors,
  readModelTensors,
} from "./model-tensors.js";
import { changeConfig, layerTypes } from "./output-config.js";
import { parameterValues, tensorContext } from "./parameters.js";
import type { MergeSource, OutputTensor, Plan, TensorPlace } from "./plan.js";
import type { ModelReference, Recipe, Slice } from "./recipe.js";
import { isSameModel } from "./recipe-models.js";
import { commonDtype, storedDtype } from "./warp.js";

export interface MergePlan {
  readonly plan: Plan;
  /** Text of config.json. */
  readonly config: string;
  /** Folder whose tokenizer, generation config and so on go into the result. */
  readonly sideFilesFrom: string;
  /** Model folders that are read, as the recipe calls them. */
  readonly models: readonly string[];
}

/** Opens the headers of all models of the recipe and checks them against each other. No tensor is read. */
export async function makePlan(recipe: Recipe, { seed }: { readonly seed: number }): Promise<MergePlan> {
  const files = fileNumbers();
  const opened = new Map<string, Promise<ModelTensors>>();
  const made = await planRecipe(recipe, { seed, files, opened, nextMerge: 0 });
  const tensors = [...made.tensors.values()].map((tensor) => outputTensor(tensor, recipe.dtype));
  const config = changeConfig(
    made.configText,
    made.config,
    { ...made.changes, dtype: commonDtype(tensors) },
    made.path,
  );
  return { plan: { files: files.paths, tensors }, config, sideFilesFrom: made.path, models: [...opened.keys()] };
}

function outputTensor({ name, dtype, shape, source, sameAs }: MadeTensor, wanted: Dtype | null): OutputTensor {
  if (!isFloatDtype(dtype)) return { name, dtype, shape, source, sameAs: sameAs ?? [] };
  return { name, dtype: storedDtype(dtype, wanted ?? "input"), shape, source };
}

interface Context {
  readonly seed: number;
  readonly files: FileNumbers;
  readonly opened: Map<string, Promise<ModelTensors>>;
  nextMerge: number;
}

interface MadeTensor extends ModelTensor {
  readonly sameAs?: readonly TensorPlace[];
}

/** What a recipe makes: as a model that others can be made of. */
interface Made extends ModelTensors {
  readonly tensors: ReadonlyMap<string, MadeTensor>;
  readonly changes: Omit<Parameters<typeof changeConfig>[2], "dtype">;
}

async function openModel(model: ModelReference, context: Context): Promise<ModelTensors> {
  if (model.kind === "recipe") return planRecipe(model.recipe, context);
  const known = context.opened.get(model.path) ?? readModelTensors(model.path, context.files);
  context.opened.set(model.path, known);
  return known;
}

/** A source of a slice, its model opened. */
interface Opened {
  readonly model: ModelTensors;
  /** Layers [begin, end). */
  readonly range: readonly [number, number];
  readonly parameters: Slice["sources"][number]["parameters"];
  readonly isBase: boolean;
}

async function planRecipe(recipe: Recipe, context: Context): Promise<Made> {
  const merge = context.nextMerge++;
  const { base, slices } = recipe;
  const opened: { readonly reference: ModelReference; readonly model: ModelTensors }[] = [];
  for (const reference of [base, ...slices.flatMap(({ sources }) => sources.map(({ model }) => model))]) {
    if (reference === null || opened.some((other) => isSameModel(reference, other.reference))) continue;
    opened.push({ reference, model: await openModel(reference, context) });
  }
  const models = withHeads(opened.map(({ model }) => model));
  const modelOf = (reference: ModelReference) =>
    models[opened.findIndex((other) => isSameModel(reference, other.reference))]!;
  checkFamilies(models);
  if (!recipe.isSliced) checkSameTensors(models);

  const baseModel = base && modelOf(base);
  const made = new Map<string, MadeTensor>();
  const types: string[] = [];
  let firstLayer = 0;
  for (const [i, slice] of slices.entries()) {
    const sources = slice.sources.map(({ model: reference, layerRange, parameters }): Opened => {
      const model = modelOf(reference);
      const range = layerRange ?? [0, model.layers];
      if (range[1] > model.layers) throw tooFewLayers(model, range);
      return { model, range, parameters, isBase: base !== null && isSameModel(reference, base) };
    });
    const { model, range } = sources[0]!;
    const work: SliceWork = {
      recipe,
      merge,
      slice,
      sources,
      baseModel,
      seed: context.seed,
      layers: range[1] - range[0],
    };
    for (const { name } of model.tensors.values()) {
      const layer = layerOf(name)?.index ?? null;
      if (layer === null) {
        if (i === (isBeforeLayers(name) ? 0 : slices.length - 1)) made.set(name, makeTensor(name, null, name, work));
      } else if (layer >= range[0] && layer < range[1]) {
        const at = layer - range[0];
        const target = withLayer(name, firstLayer + at);
        made.set(target, makeTensor(name, at, target, work));
      }
    }
    types.push(...(layerTypes(model.config, model.layers)?.slice(...range) ?? []));
    firstLayer += work.layers;
  }
  const source = baseModel ?? modelOf(slices[0]!.sources[0]!.model);
  return {
    path: source.path,
    tensors: made,
    layers: countLayers([...made.keys()]),
    configText: source.configText,
    config: source.config,
    changes: {
      layers: recipe.isSliced ? { count: firstLayer, types: types.length > 0 ? types : null } : null,
      isTied: made.has(HEAD) && isTied(source.config) ? false : null,
      vocabSize: null,
    },
  };
}

/** What is the same for all tensors of a slice. */
interface SliceWork {
  readonly recipe: Recipe;
  readonly merge: number;
  readonly slice: Slice;
  readonly sources: readonly Opened[];
  readonly baseModel: ModelTensors | null;
  readonly seed: number;
  readonly layers: number;
}

/** The tensor that the slice's method makes; `layer` counts in the slice, `name` is the first source's, `target` the result's. */
function makeTensor(name: string, layer: number | null, target: string, work: SliceWork): MadeTensor {
  const { recipe, merge, slice, sources, baseModel, seed } = work;
  const method = METHODS[recipe.method];
  const hasBase = method.base !== "none" && baseModel !== null;
  const merged = sources.filter(({ isBase }) => !(hasBase && isBase));
  const find = ({ model, range }: Pick<Opened, "model" | "range">): ModelTensor => {
    const own = layer === null ? name : withLayer(name, range[0] + layer);
    const found = model.tensors.get(own);
    if (found) return found;
    throw new SafetensorsError(model.path, `has no tensor "${own}", which is merged into "${target}"`, own);
  };
  const models = merged.map(find);
  const base = hasBase
    ? find({ model: baseModel, range: sources.find(({ isBase }) => isBase)?.range ?? sources[0]!.range })
    : null;
  const [first, ...others] = [...(base ? [base] : []), ...models] as [ModelTensor, ...ModelTensor[]];
  checkShapes(first, others, target);
  if (!isFloatDtype(first.dtype)) {
    return { name: target, dtype: first.dtype, shape: first.shape, source: first.source, sameAs: others.map(placeOf) };
  }
  const context = tensorContext(target, layer, work.layers);
  const settings: Settings = {
    global: parameterValues(method.global, [slice.parameters, recipe.parameters], context),
    models: merged.map(({ parameters }) =>
      parameterValues(method.model, [parameters, slice.parameters, recipe.parameters], context),
    ),
    seed: hash(`${seed} ${merge} ${target}`),
  };
  method.check?.(settings);
  const source: MergeSource = {
    kind: "merge",
    merge,
    method: recipe.method,
    settings,
    base: base?.source ?? null,
    models: models.map(({ source }) => source),
  };
  return { name: target, dtype: first.dtype, shape: first.shape, source };
}

/** Models of a slice may call their tensors by the same name and still be of other shapes. */
function checkShapes(first: ModelTensor, others: readonly ModelTensor[], target: string): void {
  for (const { name, shape } of others) {
    if (`${shape}` === `${first.shape}`) continue;
    const problem = `"${first.name}" of shape [${first.shape}] and "${name}" of shape [${shape}] cannot be merged into "${target}"`;
    throw new SafetensorsError(undefined, problem, target);
  }
}

function placeOf({ name, source }: ModelTensor): TensorPlace {
  if (source.kind === "tensor") return source.place;
  throw new SafetensorsError(undefined, `tensor "${name}" holds integers: only float tensors can be merged`, name);
}

/** Tensors outside the layers come from the first slice where they are embeddings, from the last where they are not. */
const isBeforeLayers = (name: string): boolean => /embed|\bwte\b|\bwpe\b/.test(name);

function withLayer(name: string, index: number): string {
  const { layer } = layerOf(name)!;
  return `${layer.replace(/\d+$/, String(index))}${name.slice(layer.length)}`;
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

/** Where some models have a head of their own, the others' is their embedding. */
function withHeads(models: readonly ModelTensors[]): ModelTensors[] {
  const heads = models.filter(({ tensors }) => tensors.has(HEAD));
  if (heads.length === 0 || heads.length === models.length) return [...models];
  return models.map((model) => {
    const embedding = embeddingOf(model);
    if (model.tensors.has(HEAD) || !embedding) return model;
    return { ...model, tensors: new Map([...model.tensors, [HEAD, { ...embedding, name: HEAD }]]) };
  });
}

/** 32 bits of a text (FNV-1a). */
function hash(text: string): number {
  let bits = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193);
  return bits >>> 0;
}
