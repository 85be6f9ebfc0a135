/**
 * Which rows make up a batch, and the seeds of everything random. Both follow from (seed, stage, step, row) alone,
 * so a run that was killed and started again sees the same batches without replaying the steps before.
 */
import { uniformInt } from "pure-rand/distribution/uniformInt";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

export type BatchPlan = {
  /** The run's seed. */
  seed: number;
  /** Which part of the run asks, such as "distill" or "iteration-1/run-2"; each has an order of its own. */
  stage: string;
  /** Optimiser step within the stage, from 1. */
  step: number;
  /** Rows in the data. */
  rows: number;
  /** Rows a batch; it may exceed `rows`. */
  size: number;
};

/**
 * Row indices of one step's batch. The stage walks the data in epochs, each a fresh permutation of all rows;
 * a batch that meets the end of an epoch goes on with the next, so every batch has `size` rows.
 */
export function planBatch({ seed, stage, step, rows, size }: BatchPlan): number[] {
  const start = (step - 1) * size;
  return Array.from({ length: size }, (_, i) => {
    const epoch = Math.floor((start + i) / rows);
    return permutation(rows, deriveSeed(seed, stage, "epoch", epoch))[(start + i) % rows]!;
  });
}

// The permutation used last: successive steps ask for the same epoch, and an epoch may hold millions of rows.
let last = { rows: 0, seed: 0, order: new Uint32Array() };

/** Numbers 0 to rows - 1 in random order (Fisher-Yates). */
function permutation(rows: number, seed: number): Uint32Array {
  if (last.rows === rows && last.seed === seed) return last.order;
  const random = xoroshiro128plus(seed);
  const order = Uint32Array.from({ length: rows }, (_, i) => i);
  for (let i = rows - 1; i > 0; i--) {
    const j = uniformInt(random, 0, i);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  last = { rows, seed, order };
  return order;
}

/**
 * A seed (int32) for one purpose, from the run's seed and the words and numbers that name the purpose:
 * deriveSeed(0, "distill", "sample", 12). FNV-1a over the arguments as JSON (so that "1" and 1, or "a", "b" and
 * "ab" differ), then MurmurHash3's finaliser, so that neighbouring steps give seeds that have nothing in common.
 */
export function deriveSeed(seed: number, ...parts: (string | number)[]): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(JSON.stringify([seed, ...parts]))) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
