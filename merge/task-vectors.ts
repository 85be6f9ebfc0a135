// A task vector is what a run changed: its weights minus the weights it started from. All merges here are sums of them.

/**
 * Dot products of the runs' task vectors, the Gram matrix: products[a][b] = sum over i of (a_i - init_i) (b_i - init_i).
 * Float64 throughout. One product of all elements of a group holds all that SLERP needs to know of it.
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
  for (const [a, x] of runs.entries()) {
    for (const [b, y] of runs.slice(0, a + 1).entries()) {
      const sum = init ? dotOfDifferences(init, x, y) : dot(x, y);
      products[a]![b]! += sum;
      if (a !== b) products[b]![a]! += sum;
    }
  }
}

function dotOfDifferences(init: Float32Array, x: Float32Array, y: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < init.length; i++) sum += (x[i]! - init[i]!) * (y[i]! - init[i]!);
  return sum;
}

function dot(x: Float32Array, y: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}

/**
 * out_i = sum over s of weights[s] sources[s]_i, summed in float64 and rounded to float32 once. `out` is none of the sources.
 * Takes whole arrays of a part only, never views into them.
 */
export function weightedSumInto(out: Float32Array, sources: readonly Float32Array[], weights: readonly number[]): void {
  const [first, second, third] = sources;
  const [w0, w1, w2] = weights;
  if (sources.length === 2) {
    for (let i = 0; i < out.length; i++) out[i] = w0! * first![i]! + w1! * second![i]!;
  } else if (sources.length === 3) {
    for (let i = 0; i < out.length; i++) out[i] = w0! * first![i]! + w1! * second![i]! + w2! * third![i]!;
  } else {
    const sum = new Float64Array(out.length);
    for (const [s, source] of sources.entries()) {
      const weight = weights[s]!;
      for (let i = 0; i < sum.length; i++) sum[i]! += weight * source[i]!;
    }
    out.set(sum);
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
  const initWeight = weights.reduce((rest, weight) => rest - weight, 1);
  const sum = new Float64Array(init.length);
  for (let i = 0; i < sum.length; i++) sum[i] = initWeight * init[i]!;
  for (const [m, run] of runs.entries()) {
    checkLength(init, run);
    const weight = weights[m]!;
    for (let i = 0; i < sum.length; i++) sum[i]! += weight * run[i]!;
  }
  return new Float32Array(sum);
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
