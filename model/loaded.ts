/** A model folder with its weights on the device. */
import type { Gemma2Config } from "./config.js";
import { type ModelFolder, openModel } from "./load.js";
import { createParameters, disposeParameters, type Parameters } from "./parameters.js";
import { loadWeights } from "./weights.js";

export type LoadedModel = { readonly folder: ModelFolder; readonly parameters: Parameters };

/** Opens a folder and loads its weights. */
export async function loadModel(dir: string): Promise<LoadedModel> {
  const folder = await openModel(dir);
  return { folder, parameters: await loadParameters(folder) };
}

/** The weights alone of a folder that was opened before, as float32; disposeParameters frees them. */
export const loadParameters = async (folder: { dir: string; config: Gemma2Config }): Promise<Parameters> =>
  createParameters(await loadWeights(folder.dir, folder.config));

/** Frees the weights. */
export const disposeModel = ({ parameters }: LoadedModel): void => disposeParameters(parameters);
