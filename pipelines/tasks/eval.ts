/** The work of `heddle eval`: how often the completion of a row is its answer. */
import { DataError, place } from "../../distill/data.js";
import { exactMatch } from "../../distill/rewards.js";
import { mean, standardError } from "../../distill/statistics.js";
import { ModelError } from "../../model/errors.js";
import { openModel } from "../../model/load.js";
import { completeRows } from "../completions.js";
import { type DataOptions, type ModelOptions, readPrompts } from "../encoded-rows.js";
import type { TaskContext } from "../events.js";

export type EvalParams = DataOptions &
  ModelOptions & {
    readonly maxNewTokens: number;
    readonly temperature: number;
    readonly batchSize: number;
  };

export type EvalResult = {
  /** Share of rows whose completion is the answer but for blanks around it. */
  accuracy: number;
  count: number;
  /** Of the accuracy, for independent rows: sqrt(accuracy (1 - accuracy) / (count - 1)). null for one row, in JSON. */
  standard_error: number;
};

export async function run(
  { model, dtype = "float32", data, system, ...options }: EvalParams,
  context: TaskContext,
): Promise<EvalResult> {
  const folder = await openModel(model, { dtype });
  const { tokenizer } = folder;
  if (tokenizer === null) throw new ModelError(model, "no tokenizer.json, needed to compare completions with answers");
  const rows = await readPrompts(folder, { data, system });
  for (const { row } of rows) {
    if (typeof row.answer === "string") continue;
    throw new DataError(
      `${row[place]}: answer: expected the text that is right, got ${row.answer === undefined ? "none" : JSON.stringify(row.answer)}`,
    );
  }
  const rewards: number[] = [];
  const choice = { ...options, topK: 0, topP: 1, seed: 0 };
  await completeRows("eval", folder, rows, choice, context, async (row, { ids }) => {
    rewards.push(exactMatch(await tokenizer.decode(ids), row.answer!));
  });
  return { accuracy: mean(rewards), count: rewards.length, standard_error: standardError(rewards) };
}
