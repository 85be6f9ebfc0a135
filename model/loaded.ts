/** A model folder with its weights on the device. */
import { type ModelFolder, openModel } from "./load.js";
import { createParameters, disposeParameters, type Parameters } from "./parameters.js";
import { loadWeights } from "./weights.js";

export type LoadedModel = { readonly folder: ModelFolder; readonly parameters: Parameters };

/** Opens a folder and loads its weights as float32. */
export async function loadModel(dir: string): Promise<LoadedModel> {
  const folder = await openModel(dir);
  return { folder, parameters: createParameters(await loadWeights(dir, folder.config)) };
}

/** Frees the weights. */
export const disposeModel = ({ parameters }: LoadedModel): void => disposeParameters(parameters);
