/** The work of `heddle eval`: how often the completion of a row is its answer, or the likeliest choice is the right one. */
import { DataError, place, type Row } from "../../distill/data.js";
import { exactMatch } from "../../distill/rewards.js";
import { mean, standardError } from "../../distill/statistics.js";
import { ModelError } from "../../model/errors.js";
import { type ModelFolder, openModel } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { disposeParameters } from "../../model/parameters.js";
import { jsonLogprobs } from "../batch-steps.js";
import { type Judged, judge } from "../choices.js";
import { completeRows } from "../completions.js";
import {
  computeOf,
  type DataOptions,
  type EncodedRow,
  hasChoices,
  type ModelOptions,
  openRows,
  readChoices,
  readPrompts,
} from "../encoded-rows.js";
import type { TaskContext } from "../events.js";
import { identityOf } from "../identity.js";
import { type RowWork, writeRows } from "../row-output.js";
import { scoreRequests } from "../score-requests.js";

export type EvalParams = DataOptions &
  ModelOptions & {
    readonly maxNewTokens: number;
    readonly temperature: number;
    readonly batchSize: number;
    /** @default none */
    readonly stop?: readonly string[];
    /** The file for the results of each row. @default none */
    readonly out?: string | null;
  };

/** Standard errors are those of a mean of independent rows; null for one row, in JSON. */
export type EvalResult = MatchResult | ChoiceResult;

export type MatchResult = {
  /** Share of rows whose completion is the answer but for blanks around it. */
  accuracy: number;
  count: number;
  standard_error: number;
};

/** Shares of rows whose likeliest choice is the answer, as choices.ts says. */
export type ChoiceResult = Record<"acc" | "acc_norm" | "acc_bytes", number> &
  Record<"acc_stderr" | "acc_norm_stderr" | "acc_bytes_stderr", number> & { count: number };

export async function run(
  {
    model,
    adapter = null,
    dtype,
    loadIn4bit,
    loadIn8bit,
    out = null,
    data,
    text,
    system,
    allowControlTokens = false,
    ignoreChatTemplate = false,
    ...options
  }: EvalParams,
  context: TaskContext,
): Promise<EvalResult> {
  const folder = await openModel(model, computeOf({ dtype, loadIn4bit, loadIn8bit }), adapter);
  if (folder.tokenizer === null)
    throw new ModelError(model, "no tokenizer.json, needed to compare completions with answers");
  const read = { system, allowControlTokens, ignoreChatTemplate };
  const rows = await openRows({ data, text, ...read });
  const identity = identityOf("eval", folder, rows.text, { ...read, ...options });
  const lines: object[] = [];
  const output = {
    stage: "eval",
    out,
    identity,
    linesPerRow: 1,
    onResult: async (line: string) => {
      lines.push(JSON.parse(line));
    },
  };
  if (hasChoices(rows)) {
    await chooseRows(folder, await readChoices(folder, rows), options, output, context);
    return choiceResult(lines as Judged[]);
  }
  const prompts = await readPrompts(folder, rows);
  requireAnswers(prompts);
  const greedy = { ...options, topK: 0, topP: 1, seed: 0 };
  await completeRows(folder, prompts, greedy, output, context, (row, [completion]) => {
    const { text } = completion!;
    return asLine(row, { completion: text, correct: exactMatch(text!, row.answer!) === 1 });
  });
  const rewards = (lines as { correct: boolean }[]).map(({ correct }) => Number(correct));
  return { accuracy: mean(rewards), count: rewards.length, standard_error: standardError(rewards) };
}

const asLine = (row: Row, more: object): string => `${JSON.stringify({ ...row, ...more })}\n`;

function requireAnswers(rows: readonly EncodedRow[]): void {
  for (const { row } of rows) {
    if (typeof row.answer === "string") continue;
    throw new DataError(
      `${row[place]}: answer: expected the text that is right, got ${row.answer === undefined ? "none" : JSON.stringify(row.answer)}`,
    );
  }
}

/** Judges the choices of all rows by their likelihood. */
async function chooseRows(
  folder: ModelFolder,
  rows: Awaited<ReturnType<typeof readChoices>>,
  { batchSize }: { readonly batchSize: number },
  output: Pick<RowWork<unknown>, "stage" | "out" | "identity" | "linesPerRow" | "onResult">,
  context: TaskContext,
): Promise<void> {
  const { config, parameters } = await loadParameters(folder);
  const sizes = { rows: batchSize, limit: config.maxPositionEmbeddings };
  try {
    const run: RowWork<(typeof rows)[number]>["run"] = async (batch) => {
      const requests = batch.flatMap(({ row: { choices } }) => choices);
      const scores = await scoreRequests(parameters, config, requests, sizes, context);
      const results = batch.map(({ row: { row, choices } }) => {
        const sums = scores.splice(0, choices.length).map((logprobs) => logprobs.reduce((sum, one) => sum + one, 0));
        const loglikelihoods = jsonLogprobs(folder.dir, row[place]!, sums);
        return asLine(row, judge(row.choices as string[], row.answer as string | number, loglikelihoods));
      });
      return { results, tokens: requests.reduce((sum, { ids }) => sum + ids.length, 0) };
    };
    const inOrder = rows.map((row, place) => ({ place, row }));
    await writeRows({ ...output, rows: inOrder, size: Math.min(batchSize, rows.length), run }, context);
  } finally {
    disposeParameters(parameters);
  }
}

function choiceResult(judged: readonly Judged[]): ChoiceResult {
  const of = (key: "acc" | "acc_norm" | "acc_bytes") => judged.map((one) => one[key]);
  return {
    acc: mean(of("acc")),
    acc_norm: mean(of("acc_norm")),
    acc_bytes: mean(of("acc_bytes")),
    count: judged.length,
    acc_stderr: standardError(of("acc")),
    acc_norm_stderr: standardError(of("acc_norm")),
    acc_bytes_stderr: standardError(of("acc_bytes")),
  };
}
