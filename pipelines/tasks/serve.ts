/** The child of `heddle serve`: scores one batch at a time. */
import { languageModel, openWeights } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import type { Batch } from "../../teacher/batching.js";
import { scoreBatch } from "../../teacher/in-process.js";
import type { TokenScores } from "../../teacher/teacher.js";
import { computeOf, type ModelOptions } from "../encoded-rows.js";

/** Loads the model; what it returns scores batches until the process ends. */
export async function open({
  model,
  adapter = null,
  ...load
}: ModelOptions): Promise<(batch: Batch) => Promise<TokenScores[]>> {
  const { config, parameters } = await loadParameters(
    languageModel(await openWeights(model, computeOf(load), adapter)),
  );
  return async (batch) => scoreBatch(parameters, config, batch);
}
