/** Completions of rows, batch by batch: what `heddle generate` and `heddle eval` have in common. */
import { deriveSeed } from "../distill/batches.js";
import type { Row } from "../distill/data.js";
import { listPrompts, sizesOf } from "../model/batch.js";
import type { ModelFolder } from "../model/load.js";
import { loadParameters } from "../model/loaded.js";
import { disposeParameters } from "../model/parameters.js";
import { type Completion, sampleCompletions } from "../student/sample.js";
import { runBatches } from "./batch-steps.js";
import type { EncodedRow } from "./encoded-rows.js";
import type { TaskContext } from "./events.js";
import { inOrder, longestFirst } from "./length-order.js";

/** As the flags of `heddle generate` say. */
export type CompletionOptions = {
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  readonly batchSize: number;
};

/** Batches whose rows are sorted by length: that many completions may wait for one before them. */
const SORTED_TOGETHER = 32;

/**
 * Samples a completion of each row and hands it to `use`, in the order of the rows. A completion also ends where prompt
 * and completion reach max_position_embeddings. Batches, shapes and random numbers follow from rows and options alone.
 */
export async function completeRows(
  stage: string,
  folder: ModelFolder,
  rows: readonly EncodedRow[],
  { batchSize, seed, maxNewTokens, ...choice }: CompletionOptions,
  context: TaskContext,
  use: (row: Row, completion: Completion) => Promise<void>,
): Promise<void> {
  const { stopIds } = folder;
  const { config, parameters } = await loadParameters(folder);
  try {
    const room = rows.map(({ ids }) => config.maxPositionEmbeddings - ids.length);
    if (maxNewTokens > Math.min(...room)) {
      const text = `completions end where a row has ${config.maxPositionEmbeddings} tokens, the model's max_position_embeddings`;
      context.emit({ type: "note", text });
    }
    // One number for all batches, as is their size (the last is filled up with its own rows): each compiles a program.
    const slots = Math.min(maxNewTokens, Math.max(...room));
    const size = Math.min(batchSize, rows.length);
    const sizes = sizesOf(
      rows.map(({ ids }) => ids),
      { rows: size, samples: 1, maxNewTokens: slots },
    );

    const sorted = longestFirst(rows, ({ ids }) => ids.length, SORTED_TOGETHER * size);
    const hand = inOrder(({ row, completion }: { row: Row; completion: Completion }) => use(row, completion));
    await runBatches(stage, sorted, size, context, async (batch, index) => {
      const full = Array.from({ length: size }, (_, i) => batch[i % batch.length]!.row.ids);
      const completions = sampleCompletions(parameters, config, listPrompts(full, sizes), {
        ...choice,
        samples: 1,
        maxNewTokens: slots,
        logprobTemperature: 1,
        stopIds,
        seed: deriveSeed(seed, "generate", index),
      });
      let tokens = 0;
      for (const [i, { place, row }] of batch.entries()) {
        const end = config.maxPositionEmbeddings - row.ids.length;
        const ids = completions[i]!.ids.slice(0, end);
        await hand(place, { row: row.row, completion: { ids, logprobs: completions[i]!.logprobs.slice(0, end) } });
        tokens += ids.length;
      }
      return tokens;
    });
  } finally {
    disposeParameters(parameters);
  }
}
