/** Work that goes through rows in batches, as steps that a progress display follows. */
import { finite } from "../model/errors.js";
import type { TaskContext } from "./events.js";

/**
 * Calls `run` for each batch of `size` items in their order (the last may be smaller), from batch `first` on. It returns
 * how many tokens it dealt with; what is told with each step is the mean speed so far. The task can be stopped between
 * two batches.
 */
export async function runBatches<T>(
  stage: string,
  items: readonly T[],
  size: number,
  { emit, signal, breathe }: TaskContext,
  run: (batch: readonly T[], index: number) => Promise<number>,
  first = 0,
): Promise<void> {
  const steps = Math.ceil(items.length / size);
  const startMs = performance.now();
  let tokens = 0;
  emit({ type: "stage", stage, steps, done: first });
  if (first === steps) return;
  for (let index = first; index < steps; index++) {
    await breathe();
    signal.throwIfAborted();
    tokens += await run(items.slice(index * size, (index + 1) * size), index);
    const seconds = (performance.now() - startMs) / 1000;
    emit({ type: "step", stage, step: index + 1, metrics: { tokens_per_second: tokens / seconds } });
  }
  emit({ type: "stage", stage, steps, done: steps });
}

/**
 * Log-probabilities of a row by the model in `dir` for a line of JSON, with the nine digits that tell a float32 from its
 * neighbours.
 * @throws ModelError if one is not finite
 */
export const jsonLogprobs = (dir: string, row: string, logprobs: Iterable<number>): number[] =>
  finite(dir, `a log-probability of ${row}`, logprobs).map((value) => Number(value.toPrecision(9)));
