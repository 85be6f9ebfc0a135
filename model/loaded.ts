/** A model folder with its weights on the device. */
import type { Variable } from "tfjs-jit";
import type { Adapter } from "./adapter.js";
import type { Compute, ComputeDtype } from "./compute.js";
import { computedAs, type ModelConfig } from "./config.js";
import { type ModelFolder, openModel } from "./load.js";
import { disposeParameters, isCompact, layersAlike, type Parameters, variableOf } from "./parameters.js";
import { partNames } from "./quantised.js";
import { quantisedIn, readAdapterWeights, readWeights, type Storage } from "./weights.js";

export type LoadedModel = { readonly folder: ModelFolder; readonly parameters: Parameters };

export type LoadOptions = {
  /** What matrix products are computed in. @default "float32" */
  readonly dtype?: ComputeDtype;
  /** What each tensor is kept in. @default what matrix products are computed in */
  readonly storageOf?: (name: string) => Storage;
  /** Folder of an adapter on the model. @default none, unless the model folder is an adapter's itself */
  readonly adapter?: string | null;
};

/** Opens a folder and loads its weights. */
export async function loadModel(
  dir: string,
  { dtype = "float32", storageOf, adapter = null }: LoadOptions = {},
): Promise<LoadedModel> {
  const folder = await openModel(dir, { dtype }, adapter);
  const { config, parameters } = await loadParameters(folder, storageOf);
  return { folder: { ...folder, config }, parameters };
}

/**
 * The weights alone of a folder that was opened before, and how to compute with them; disposeParameters frees them. One
 * tensor at a time is in host memory.
 */
export async function loadParameters(
  { dir, config, adapter = null }: Pick<ModelFolder, "dir" | "config"> & Partial<Pick<ModelFolder, "adapter">>,
  storageOf: (name: string) => Storage = storageFor(config.compute),
): Promise<{ config: ModelConfig; parameters: Parameters }> {
  const parameters: Record<string, Variable> = {};
  try {
    for await (const [name, weight] of readWeights(dir, config, storageOf)) parameters[name] = variableOf(weight);
    if (adapter !== null) await addAdapter(parameters, adapter);
  } catch (error) {
    disposeParameters(parameters);
    throw error;
  }
  // XLA makes float32 of all bfloat16 weights at once, unless the layers are a loop: then of one layer at a time.
  const segments = isCompact(parameters) ? layersAlike(parameters) : null;
  return { config: computedAs(config, { segments }), parameters };
}

const storageFor = ({ dtype, quantised }: Compute): ((name: string) => Storage) =>
  quantised === null ? () => dtype : quantisedIn(quantised);

/** Adds an adapter's matrices, and puts what it stores whole in the place of the model's. */
async function addAdapter(parameters: Record<string, Variable>, adapter: Adapter): Promise<void> {
  for await (const [name, weight] of readAdapterWeights(adapter)) {
    for (const before of [name, ...partNames(name)]) {
      parameters[before]?.dispose();
      delete parameters[before];
    }
    parameters[name] = variableOf(weight);
  }
}

/** Frees the weights. */
export const disposeModel = ({ parameters }: LoadedModel): void => disposeParameters(parameters);
