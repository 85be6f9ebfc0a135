/** The work of `heddle score`: ln p of every token of every row. */
import { place } from "../../distill/data.js";
import { type ModelFolder, openFolder } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { disposeParameters } from "../../model/parameters.js";
import { jsonLogprobs } from "../batch-steps.js";
import {
  computeOf,
  contextLimit,
  type DataOptions,
  type ModelOptions,
  openRows,
  readSequences,
} from "../encoded-rows.js";
import type { TaskContext } from "../events.js";
import { identityOf } from "../identity.js";
import { writeRows } from "../row-output.js";
import { scoreRequests } from "../score-requests.js";
import { type Windows, windowsFor, windowsOf } from "../windows.js";
import { type LabelSummary, scoreLabels } from "./score-labels.js";

export type ScoreParams = DataOptions &
  ModelOptions & {
    readonly out: string;
    readonly batchSize: number;
    /** Tokens that are scored at once, of rows of any length: see windows.ts. @default all of a row */
    readonly window?: number;
    readonly stride?: number;
  };

export type ScoreSummary = {
  rows: number;
  /** Scored ones: all but the first of each row. */
  tokens: number;
  /** In nats. */
  mean_logprob: number;
  /** exp(-mean_logprob). */
  perplexity: number;
  /** Bits of all scored tokens over the UTF-8 bytes of their text, control tokens left out; null where a row is ids only. */
  bits_per_byte: number | null;
};

/**
 * Writes each row with `ids` and `logprobs`: null, then ln p(ids[i] | ids[<i]), and sums them up. A model for sequence
 * classification gives `scores` instead.
 */
export async function run(
  { model, adapter = null, dtype, loadIn4bit, loadIn8bit, out, batchSize, window, stride, ...data }: ScoreParams,
  context: TaskContext,
): Promise<ScoreSummary | LabelSummary> {
  const folder = await openFolder(model, computeOf({ dtype, loadIn4bit, loadIn8bit }), adapter);
  const { maxPositionEmbeddings } = folder.config;
  const windows = windowsFor(folder.config, { window, stride });
  const rows = await openRows(data);
  const longest =
    windows === null
      ? { tokens: maxPositionEmbeddings, why: `${contextLimit(maxPositionEmbeddings)}; --stride scores longer ones` }
      : { tokens: Infinity, why: "" };
  const sequences = await readSequences(folder, rows, longest);
  const { text, data: _, ...read } = rows;
  const identity = identityOf("score", folder, text, { batchSize, ...windows, ...read });
  if (folder.config.numLabels !== null) return scoreLabels(folder, sequences, { out, identity, batchSize }, context);
  const whole: Windows = windows ?? { window: maxPositionEmbeddings, stride: maxPositionEmbeddings };
  const parts = sequences.map(({ ids }) => windowsOf(ids.length, whole));
  const sizes = { rows: Math.min(batchSize, parts.flat().length), limit: whole.window };
  const { config, parameters } = await loadParameters(folder);
  const { summary, onResult } = summing(folder);
  try {
    await writeRows(
      {
        stage: "score",
        out,
        identity,
        rows: sequences.map((row, place) => ({ place, row })),
        size: Math.min(batchSize, sequences.length),
        linesPerRow: 1,
        onResult,
        run: async (batch) => {
          const requests = batch.flatMap(({ place, row: { ids } }) =>
            parts[place]!.map(({ begin, end, from }) => ({ ids: ids.slice(begin, end), from: from - begin })),
          );
          const scores = await scoreRequests(parameters, config, requests, sizes, context);
          const results = batch.map(({ place: at, row: { row, ids } }) => {
            const own = scores.splice(0, parts[at]!.length).flatMap((logprobs) => [...logprobs]);
            return `${JSON.stringify({ ...row, ids, logprobs: [null, ...jsonLogprobs(folder.dir, row[place]!, own)] })}\n`;
          });
          return { results, tokens: batch.reduce((sum, { row: { ids } }) => sum + ids.length, 0) };
        },
      },
      context,
    );
    return summary();
  } finally {
    disposeParameters(parameters);
  }
}

/** Sums up the lines of scored rows. */
function summing({ tokenizer }: ModelFolder) {
  let [rows, tokens, nats, bytes]: [number, number, number, number | null] = [0, 0, 0, 0];
  return {
    onResult: async (line: string): Promise<void> => {
      const row = JSON.parse(line) as {
        ids: number[];
        logprobs: (number | null)[];
        prompt?: unknown;
        messages?: unknown;
      };
      const isText = row.prompt !== undefined || row.messages !== undefined;
      rows++;
      tokens += row.ids.length - 1;
      for (const logprob of row.logprobs) nats -= logprob ?? 0;
      bytes = isText && bytes !== null ? bytes + Buffer.byteLength(await tokenizer!.decode(row.ids.slice(1))) : null;
    },
    summary: (): ScoreSummary => ({
      rows,
      tokens,
      mean_logprob: -nats / tokens,
      perplexity: Math.exp(nats / tokens),
      bits_per_byte: bytes === null ? null : nats / Math.LN2 / bytes,
    }),
  };
}
