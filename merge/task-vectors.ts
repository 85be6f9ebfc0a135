// A task vector is what a run changed: its weights minus the weights it started from. All merges here are sums of them.

import { kernelsFor } from "./simd/arena.js";
import { dotOfDifferences, productsOfDifferences, weightedSumInto } from "./simd/sums.js";

/**
 * Dot products of the runs' task vectors, the Gram matrix: products[a][b] = sum over i of (a_i - init_i) (b_i - init_i).
 * In float64, but for
 * bfloat16 that becomes bfloat16 (merge/bfloat16.ts). One product of all elements of a group holds all that SLERP needs to know of it.
 */
export type Products = number[][];

export const noProducts = (runs: number): Products =>
  Array.from({ length: runs }, () => new Array<number>(runs).fill(0));

/**
 * Adds the products of these elements (a tensor, or a part of one) to `products`, in place. Without an init the products
 * are those of the runs themselves.
 */
export function addProducts(products: Products, init: Float32Array | null, runs: readonly Float32Array[]): void {
  if (init) for (const run of runs) checkLength(init, run);
  const [first, second] = runs;
  if (runs.length === 2) {
    const [aa, ab, bb] = productsOfDifferences(init, first!, second!);
    products[0]![0]! += aa;
    products[0]![1]! += ab;
    products[1]![0]! += ab;
    products[1]![1]! += bb;
    return;
  }
  for (const [a, x] of runs.entries()) {
    for (const [b, y] of runs.slice(0, a + 1).entries()) {
      const sum = dotOfDifferences(init, x, y);
      products[a]![b]! += sum;
      if (a !== b) products[b]![a]! += sum;
    }
  }
}

/**
 * init + sum over m of weights[m] (runs[m] - init), summed in float64 and rounded to float32 once.
 * Computed as (1 - sum of weights) init + sum of weights[m] runs[m]: a single weight of 1 gives that run bit for bit.
 */
export function addTaskVectors(
  init: Float32Array,
  runs: readonly Float32Array[],
  weights: readonly number[],
): Float32Array {
  for (const run of runs) checkLength(init, run);
  const initWeight = weights.reduce((rest, weight) => rest - weight, 1);
  const sum = new Float32Array(init.length);
  weightedSumInto(sum, [init, ...runs], [initWeight, ...weights]);
  return sum;
}

/** Length of the sum over m of weights[m] times task vector m, from the products. */
export function weightedNorm(products: Products, weights: readonly number[]): number {
  let square = 0;
  for (const [a, wa] of weights.entries()) {
    for (const [b, wb] of weights.entries()) square += wa * wb * products[a]![b]!;
  }
  return Math.sqrt(Math.max(0, square));
}

function checkLength(init: Float32Array, run: Float32Array): void {
  if (init.length !== run.length) {
    throw new RangeError(`init of ${init.length} elements, run of ${run.length}: expected the same length`);
  }
}

/**
 * Writes elements `start` to `start + count` of a model's task vector to the beginning of `into`, rounded to float32. Zeros are
 * positive. Four at a time: V8 does not unroll loops.
 */
export function taskVectorInto(
  into: Float32Array,
  model: Float32Array,
  init: Float32Array,
  start: number,
  count: number,
): void {
  const kernels = kernelsFor(into, model, init);
  const whole = kernels === undefined ? 0 : count - (count % 4);
  kernels?.taskVector(init.byteOffset + 4 * start, model.byteOffset + 4 * start, whole, into.byteOffset);
  // -0 + 0 is 0.
  for (let i = whole; i < count; i++) into[i] = model[start + i]! - init[start + i]! + 0;
}
