// Random numbers that belong to elements: the same whatever the parts, their order and the threads that compute them.

/** What the random numbers of 2^32 elements are drawn with. */
interface RandomKey {
  readonly first: number;
  readonly second: number;
}

/** Of a model's elements from index 2^32 * `high` on. */
function randomKey(seed: number, model: number, high: number): RandomKey {
  const first = mix(seed ^ mix(model + 0x9e3779b9));
  return { first, second: mix(first + high + 0x85ebca6b) };
}

/**
 * 31 bits, uniform from 0 to 2^31 - 1, of an element: `index` counts from 0 modulo 2^32. Three rounds of a multiplicative
 * hash (Wellons, "triple32", nullprogram.com/blog/2018/07/31) with a part of the key before each of the first two: two keys
 * give sequences that are no shifts of each other.
 */
export function random31(index: number, first: number, second: number): number {
  let x = index ^ first;
  x = Math.imul(x ^ (x >>> 17), 0xed5ad4bb);
  x = Math.imul(x ^ (x >>> 11) ^ second, 0xac4c1b51);
  x = Math.imul(x ^ (x >>> 15), 0x31848bab);
  return (x ^ (x >>> 14)) >>> 1;
}

const mix = (x: number): number => random31(x, 0x5bd1e995, 0x27d4eb2f) ^ Math.imul(x, 0x2c1b3c6d);

/** Elements of a model's tensor whose random numbers are asked for: `start` is the index of the first in the tensor. */
export interface Draws {
  readonly seed: number;
  readonly model: number;
  readonly start: number;
}

/** Sets to zero each of the first `count` values with probability 1 - `density`, which is above 0 and below 1. */
export function dropAtRandom(bits: Int32Array, count: number, draws: Draws, density: number): void {
  const kept = Math.min(2 ** 31 - 1, Math.round(density * 2 ** 31));
  forKeys(draws, count, (from, to, index, first, second) => drop(bits, from, to, index, first, second, kept));
}

function drop(
  bits: Int32Array,
  from: number,
  to: number,
  index: number,
  first: number,
  second: number,
  kept: number,
): void {
  // The difference is negative, its sign all ones, where the element is kept.
  for (let i = from; i < to; i++) bits[i] = bits[i]! & ((random31((index + i) | 0, first, second) - kept) >> 31);
}

/** As `dropAtRandom` of the values from `row` on, as many as there are ranks, each with its density: least + step * rank. */
export function dropByRank(
  bits: Int32Array,
  row: number,
  ranks: Int32Array,
  draws: Draws,
  least: number,
  step: number,
): void {
  const leastKept = least * 2 ** 31;
  const stepKept = step * 2 ** 31;
  forKeys(draws, ranks.length, (from, to, index, first, second) => {
    for (let i = from; i < to; i++) {
      const kept = (leastKept + stepKept * ranks[i]!) | 0;
      bits[row + i] = bits[row + i]! & ((random31(index + i, first, second) - kept) >> 31);
    }
  });
}

/** Calls `draw` for the draws from `from` to `to` that share a key; the index of draw i, modulo 2^32, is that of `index + i`. */
function forKeys(
  { seed, model, start }: Draws,
  count: number,
  draw: (from: number, to: number, index: number, first: number, second: number) => void,
): void {
  for (let from = 0; from < count; ) {
    const high = Math.floor((start + from) / 2 ** 32);
    const to = Math.min(count, (high + 1) * 2 ** 32 - start);
    const { first, second } = randomKey(seed, model, high);
    draw(from, to, (start - high * 2 ** 32) | 0, first, second);
    from = to;
  }
}
