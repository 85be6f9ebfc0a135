/** A model folder with its weights on the device. */
import { readsBfloat16, type Variable } from "tfjs-jit";
import type { Adapter } from "./adapter.js";
import type { Compute, ComputeDtype } from "./compute.js";
import { computedAs, type ModelConfig } from "./config.js";
import { type ModelFolder, openModel } from "./load.js";
import { disposeParameters, isExpanded, layersAlike, type Parameters, variableOf } from "./parameters.js";
import { partNames } from "./quantised.js";
import type { Storage } from "./stored-tensor.js";
import { quantisedIn, readAdapterWeights, readWeights } from "./weights.js";

export type LoadedModel = { readonly folder: ModelFolder; readonly parameters: Parameters };

export type LoadOptions = {
  /** What matrix products are computed in. @default "float32" */
  readonly dtype?: ComputeDtype;
  /** Whether it may learn. One that does not keeps a checkpoint's bfloat16 where products in float32 read it. @default true */
  readonly learns?: boolean;
  /** What each tensor is kept in. @default what matrix products are computed in, but for what `learns` says */
  readonly storageOf?: (name: string) => Storage;
  /** Folder of an adapter on the model. @default none, unless the model folder is an adapter's itself */
  readonly adapter?: string | null;
  /** The adapter becomes part of the weights, as merge_and_unload of PEFT has it. @default false: it stands beside them */
  readonly mergesAdapter?: boolean;
};

/** Opens a folder and loads its weights. */
export async function loadModel(
  dir: string,
  { dtype = "float32", learns = true, storageOf, adapter = null, mergesAdapter = false }: LoadOptions = {},
): Promise<LoadedModel> {
  const folder = await openModel(dir, { dtype }, adapter);
  const kept = storageOf ?? (learns ? storageFor : frozenStorage)(folder.config.compute);
  const { config, parameters } = await loadParameters(folder, kept, mergesAdapter);
  return { folder: { ...folder, config }, parameters };
}

/**
 * The weights alone of a folder that was opened before, and how to compute with them; disposeParameters frees them. One
 * tensor at a time is in host memory. Unless `storageOf` says otherwise, they are not to learn.
 */
export async function loadParameters(
  { dir, config, adapter = null }: Pick<ModelFolder, "dir" | "config"> & Partial<Pick<ModelFolder, "adapter">>,
  storageOf: (name: string) => Storage = frozenStorage(config.compute),
  mergesAdapter = false,
): Promise<{ config: ModelConfig; parameters: Parameters }> {
  const loaded: Record<string, Variable> = {};
  const ofBase = adapter?.addsHead ? { ...config, numLabels: null } : config;
  try {
    for await (const [name, weight] of readWeights(dir, ofBase, storageOf, mergesAdapter ? adapter : null)) {
      loaded[name] = variableOf(weight);
    }
    if (adapter === null || mergesAdapter) return { config: inLoops(config, loaded), parameters: loaded };
    const parameters = withAdapter(loaded, await loadAdapter(adapter));
    disposeParameters(Object.fromEntries(Object.entries(loaded).filter(([name]) => parameters[name] !== loaded[name])));
    return { config: inLoops(config, parameters), parameters };
  } catch (error) {
    disposeParameters(loaded);
    throw error;
  }
}

/** XLA makes float32 of all such weights at once, unless the layers are a loop: then of one layer at a time. */
const inLoops = (config: ModelConfig, parameters: Parameters): ModelConfig =>
  computedAs(config, { segments: isExpanded(parameters) ? layersAlike(parameters) : null });

const frozenStorage = (compute: Compute): ((name: string) => Storage) =>
  compute.dtype === "float32" && compute.quantised === null && readsBfloat16 ? () => "stored" : storageFor(compute);

const storageFor = ({ dtype, quantised }: Compute): ((name: string) => Storage) =>
  quantised === null ? () => dtype : quantisedIn(quantised);

/** A model on the base of another, in one copy, with an adapter beside it; `own` are the adapter's weights alone. */
export async function loadOnBase(
  { folder, parameters: base }: LoadedModel,
  adapter: Adapter,
): Promise<{ model: LoadedModel; own: Parameters }> {
  const own = await loadAdapter(adapter);
  const parameters = withAdapter(base, own);
  const config = inLoops(folder.config, parameters);
  return { model: { folder: { ...folder, adapter, config }, parameters }, own };
}

/** An adapter's matrices, and what it stores whole. */
async function loadAdapter(adapter: Adapter): Promise<Parameters> {
  const parameters: Record<string, Variable> = {};
  try {
    for await (const [name, weight] of readAdapterWeights(adapter)) parameters[name] = variableOf(weight);
    return parameters;
  } catch (error) {
    disposeParameters(parameters);
    throw error;
  }
}

/** Beside the base; what an adapter stores whole stands in the place of the base's. */
function withAdapter(base: Parameters, own: Parameters): Parameters {
  const hidden = new Set(Object.keys(own).flatMap((name) => [name, ...partNames(name)]));
  return { ...Object.fromEntries(Object.entries(base).filter(([name]) => !hidden.has(name))), ...own };
}

/** Frees the weights. */
export const disposeModel = ({ parameters }: LoadedModel): void => disposeParameters(parameters);
