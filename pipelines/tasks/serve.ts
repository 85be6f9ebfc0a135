/** The child of `heddle serve`: scores one batch at a time. */
import type { ComputeDtype } from "../../model/compute.js";
import { computedAs, readModelConfig } from "../../model/config.js";
import { loadParameters } from "../../model/loaded.js";
import type { Batch } from "../../teacher/batching.js";
import { scoreBatch } from "../../teacher/in-process.js";
import type { TokenScores } from "../../teacher/teacher.js";

/** Loads the model; what it returns scores batches until the process ends. */
export async function open({
  model,
  dtype = "float32",
}: {
  model: string;
  dtype?: ComputeDtype;
}): Promise<(batch: Batch) => Promise<TokenScores[]>> {
  const opened = computedAs(await readModelConfig(model), { dtype });
  const { config, parameters } = await loadParameters({ dir: model, config: opened });
  return async (batch) => scoreBatch(parameters, config, batch);
}
