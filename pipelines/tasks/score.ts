/** The work of `heddle score`: ln p of every token of every row. */
import { place } from "../../distill/data.js";
import { paddedLength } from "../../model/batch.js";
import { openModel } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { disposeParameters } from "../../model/parameters.js";
import { scoreBatch } from "../../teacher/in-process.js";
import { jsonLogprobs, runBatches } from "../batch-steps.js";
import { type DataOptions, type ModelOptions, readSequences } from "../encoded-rows.js";
import type { TaskContext } from "../events.js";
import { writeStreamed } from "../output-file.js";

export type ScoreParams = DataOptions & ModelOptions & { readonly out: string; readonly batchSize: number };

/** Writes each row with `ids` and `logprobs`: null, then ln p(ids[i] | ids[<i]). */
export async function run(
  { model, dtype = "float32", out, batchSize, ...data }: ScoreParams,
  context: TaskContext,
): Promise<void> {
  const folder = await openModel(model, { dtype });
  const sequences = await readSequences(folder, data);
  const { config, parameters } = await loadParameters(folder);
  const rows = Math.min(batchSize, sequences.length);
  try {
    await writeStreamed(out, (write) =>
      runBatches("score", sequences, rows, context, async (batch) => {
        const requests = batch.map(({ ids }) => ({ ids: [...ids], from: 1 }));
        const longest = Math.max(...batch.map(({ ids }) => ids.length));
        const length = paddedLength(longest, config.maxPositionEmbeddings);
        const scores = scoreBatch(parameters, config, { requests, k: 0, rows, length });
        for (const [i, { row, ids }] of batch.entries()) {
          const logprobs = [null, ...jsonLogprobs(scores[i]!.actual, row[place]!)];
          write(`${JSON.stringify({ ...row, ids, logprobs })}\n`);
        }
        return batch.reduce((sum, { ids }) => sum + ids.length, 0);
      }),
    );
  } finally {
    disposeParameters(parameters);
  }
}
