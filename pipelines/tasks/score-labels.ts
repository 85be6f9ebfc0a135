/** The work of `heddle score` with a model for sequence classification: a score for each label, of every row. */
import { place } from "../../distill/data.js";
import { sizesOf } from "../../model/batch.js";
import { labelScores } from "../../model/classify.js";
import { finite } from "../../model/errors.js";
import type { ModelFolder } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { disposeParameters } from "../../model/parameters.js";
import type { EncodedRow } from "../encoded-rows.js";
import type { TaskContext } from "../events.js";
import type { Identity } from "../identity.js";
import { writeRows } from "../row-output.js";

export type LabelSummary = {
  rows: number;
  /** Of each label, over the rows. */
  mean_scores: number[];
};

/**
 * Writes each row with `ids` and `scores`, one for each label of the config.
 * @throws ModelError where one is not finite
 */
export async function scoreLabels(
  folder: ModelFolder,
  sequences: readonly EncodedRow[],
  { out, identity, batchSize }: { readonly out: string; readonly identity: Identity; readonly batchSize: number },
  context: TaskContext,
): Promise<LabelSummary> {
  const { config, parameters } = await loadParameters(folder);
  const rows = Math.min(batchSize, sequences.length);
  const sizes = sizesOf(
    sequences.map(({ ids }) => ids),
    { rows, samples: 1, maxNewTokens: 1 },
  );
  const sums = Array.from({ length: config.numLabels! }, () => 0);
  let count = 0;
  const onResult = async (line: string): Promise<void> => {
    const { scores } = JSON.parse(line) as { scores: number[] };
    scores.forEach((score, label) => {
      sums[label]! += score;
    });
    count++;
  };
  const run = async (batch: readonly { readonly row: EncodedRow }[]) => {
    const scores = labelScores(
      parameters,
      config,
      batch.map(({ row: { ids } }) => ids),
      sizes,
    );
    const results = batch.map(
      ({ row: { row, ids } }, i) =>
        `${JSON.stringify({ ...row, ids, scores: finite(folder.dir, `the score of ${row[place]}`, scores[i]!) })}\n`,
    );
    return { results, tokens: batch.reduce((sum, { row: { ids } }) => sum + ids.length, 0) };
  };
  try {
    const numbered = sequences.map((row, at) => ({ place: at, row }));
    const work = { stage: "score", out, identity, rows: numbered, size: rows, linesPerRow: 1, onResult, run };
    await writeRows(work, context);
    return { rows: count, mean_scores: sums.map((sum) => sum / count) };
  } finally {
    disposeParameters(parameters);
  }
}
