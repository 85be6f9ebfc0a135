/** Completions of rows, batch by batch: what `heddle generate` and `heddle eval` have in common. */
import { deriveSeed } from "../distill/batches.js";
import type { Row } from "../distill/data.js";
import { listPrompts, sizesOf } from "../model/batch.js";
import { ModelError } from "../model/errors.js";
import type { ModelFolder } from "../model/load.js";
import { loadParameters } from "../model/loaded.js";
import { disposeParameters } from "../model/parameters.js";
import { type Completion, sampleCompletions } from "../student/sample.js";
import type { EncodedRow } from "./encoded-rows.js";
import type { TaskContext } from "./events.js";
import { longestFirst } from "./length-order.js";
import { type RowWork, writeRows } from "./row-output.js";
import { stopAt } from "./stop-strings.js";

/** As the flags of `heddle generate` say. */
export type CompletionOptions = {
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  readonly batchSize: number;
  /** Completions of each row. @default 1 */
  readonly samples?: number;
  /** Texts that end a completion, as stop-strings.ts says. @default none */
  readonly stop?: readonly string[];
};

/** A completion, and its text where the model has a tokenizer: without a stop token or text. */
export type CompletionOfRow = Completion & { readonly text: string | undefined };

/** Batches whose rows are sorted by length. */
const SORTED_TOGETHER = 32;

/**
 * Samples completions of each row and writes what `linesOf` makes of them. A completion also ends where prompt and
 * completion reach max_position_embeddings. Batches, shapes and random numbers follow from rows and options alone.
 */
export async function completeRows(
  folder: ModelFolder,
  rows: readonly EncodedRow[],
  { batchSize, seed, maxNewTokens, samples = 1, stop = [], ...choice }: CompletionOptions,
  output: Pick<RowWork<EncodedRow>, "stage" | "out" | "identity" | "linesPerRow" | "onResult">,
  context: TaskContext,
  linesOf: (row: Row, completions: readonly CompletionOfRow[]) => string,
): Promise<void> {
  const { dir, stopIds, tokenizer } = folder;
  if (stop.length > 0 && tokenizer === null) {
    throw new ModelError(dir, "no tokenizer.json, needed to find --stop in completions");
  }
  const { config, parameters } = await loadParameters(folder);
  const stopping = tokenizer === null || stop.length === 0 ? null : stopAt(tokenizer, stop, config.vocabSize);
  try {
    const lengths = rows.map(({ ids }) => ids.length);
    const roomAfter = (length: number) => config.maxPositionEmbeddings - length;
    const [shortest, longest] = [lengths.reduce((a, b) => Math.min(a, b)), lengths.reduce((a, b) => Math.max(a, b))];
    if (maxNewTokens > roomAfter(longest)) {
      const text = `completions end where a row has ${config.maxPositionEmbeddings} tokens, the model's max_position_embeddings`;
      context.emit({ type: "note", text });
    }
    // One number for all batches, as is their size (the last is filled up with its own rows): each compiles a program.
    const slots = Math.min(maxNewTokens, roomAfter(shortest));
    const size = Math.min(batchSize, rows.length);
    const sizes = sizesOf(
      rows.map(({ ids }) => ids),
      { rows: size, samples, maxNewTokens: slots },
    );
    const cut = async ({ ids, logprobs }: Completion, most: number): Promise<CompletionOfRow> => {
      const kept = ids.slice(0, most);
      if (tokenizer === null) return { ids: kept, logprobs: logprobs.slice(0, most), text: undefined };
      const stopped = stopping === null ? { ids: kept, text: await tokenizer.decode(kept) } : await stopping.cut(kept);
      return { ...stopped, logprobs: logprobs.slice(0, stopped.ids.length) };
    };
    const run: RowWork<EncodedRow>["run"] = async (batch, index) => {
      const full = Array.from({ length: size }, (_, i) => batch[i % batch.length]!.row.ids);
      const sampled = sampleCompletions(parameters, config, listPrompts(full, sizes), {
        ...choice,
        samples,
        maxNewTokens: slots,
        logprobTemperature: 1,
        stopIds,
        stopTexts: stopping?.texts ?? null,
        seed: deriveSeed(seed, "generate", index),
      });
      const ofRows = await Promise.all(
        batch.map(({ row: { ids } }, i) => {
          const own = sampled.slice(i * samples, (i + 1) * samples);
          return Promise.all(own.map((one) => cut(one, roomAfter(ids.length))));
        }),
      );
      return {
        results: batch.map(({ row: { row } }, i) => linesOf(row, ofRows[i]!)),
        tokens: ofRows.flat().reduce((sum, { ids }) => sum + ids.length, 0),
      };
    };
    const sorted = longestFirst(rows, ({ ids }) => ids.length, SORTED_TOGETHER * size);
    await writeRows({ ...output, rows: sorted, size, run }, context);
  } finally {
    disposeParameters(parameters);
  }
}
