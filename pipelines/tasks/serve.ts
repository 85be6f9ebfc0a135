/** The child of `heddle serve`: scores one batch at a time. */
import type { ComputeDtype } from "../../model/compute.js";
import { openWeights } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import type { Batch } from "../../teacher/batching.js";
import { scoreBatch } from "../../teacher/in-process.js";
import type { TokenScores } from "../../teacher/teacher.js";

/** Loads the model; what it returns scores batches until the process ends. */
export async function open({
  model,
  adapter = null,
  dtype = "float32",
}: {
  model: string;
  adapter?: string | null;
  dtype?: ComputeDtype;
}): Promise<(batch: Batch) => Promise<TokenScores[]>> {
  const { config, parameters } = await loadParameters(await openWeights(model, { dtype }, adapter));
  return async (batch) => scoreBatch(parameters, config, batch);
}
