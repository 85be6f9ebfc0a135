// Sums over elements, of arrays in the arena by SIMD and of others by plain loops with the same bits.
import { allocateBytes, arenaBytes, clearArena, firstBytes, kernelsFor, padded, VECTOR } from "./arena.js";

/** Terms of a weighted sum that the kernels can take: 16 bytes each. */
export const MAX_TERMS = 256;

/**
 * Sum over i of (a_i - base_i)(b_i - base_i), base 0 where it is null, in float64. Arrays of the arena, and views of
 * them, go by SIMD, with the same bits.
 */
export function dotOfDifferences(base: Float32Array | null, a: Float32Array, b: Float32Array): number {
  const whole = a.length - (a.length % 4);
  let sum: number;
  const fast = base === null ? kernelsFor(a, b) : kernelsFor(a, b, base);
  if (fast !== undefined) {
    sum =
      base === null
        ? fast.dot(a.byteOffset, b.byteOffset, whole)
        : fast.dotOfDifferences(base.byteOffset, a.byteOffset, b.byteOffset, whole);
  } else {
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let i = 0; i < whole; i += 4) {
      s0 += product(base, a, b, i);
      s1 += product(base, a, b, i + 1);
      s2 += product(base, a, b, i + 2);
      s3 += product(base, a, b, i + 3);
    }
    sum = s0 + s2 + (s1 + s3);
  }
  for (let i = whole; i < a.length; i++) sum += product(base, a, b, i);
  return sum;
}

/** The dot products aa, ab and bb of the differences of a and b from a base, each as `dotOfDifferences` gives it. */
export function productsOfDifferences(
  base: Float32Array | null,
  a: Float32Array,
  b: Float32Array,
): [aa: number, ab: number, bb: number] {
  const fast = base === null ? undefined : kernelsFor(a, b, base);
  if (base === null || fast === undefined) {
    return [dotOfDifferences(base, a, a), dotOfDifferences(base, a, b), dotOfDifferences(base, b, b)];
  }
  const whole = a.length - (a.length % 4);
  fast.productsOfDifferences(base.byteOffset, a.byteOffset, b.byteOffset, whole, 0);
  const sums = firstBytes();
  let [aa, ab, bb] = [sums.getFloat64(0, true), sums.getFloat64(8, true), sums.getFloat64(16, true)];
  for (let i = whole; i < a.length; i++) {
    aa += product(base, a, a, i);
    ab += product(base, a, b, i);
    bb += product(base, b, b, i);
  }
  return [aa, ab, bb];
}

/** Running sums of aa, ab and bb, two float64 each. */
const RUNNING = 6;

/**
 * As `productsOfDifferences`, of bfloat16 bytes of the arena, in float32 but for the sums of 64 elements, which are added in
 * float64: each product is off by at most 11 * 2^-24 of the sum of its absolute terms, unless these are below 2^-126. Each
 * call of what it gives adds those of the first `count` elements as they are then, to calls of a multiple of 64 elements each;
 * no other sum may come between.
 */
export function productsBfloat16(
  base: Uint8Array,
  a: Uint8Array,
  b: Uint8Array,
): (count: number) => [aa: number, ab: number, bb: number] {
  const kernels = kernelsFor(base, a, b)!;
  const sums = new Float64Array(firstBytes().buffer, 0, RUNNING).fill(0);
  return (count) => {
    kernels.addProductsBfloat16(base.byteOffset, a.byteOffset, b.byteOffset, padded(count), 0);
    return [sums[0]! + sums[1]!, sums[2]! + sums[3]!, sums[4]! + sums[5]!];
  };
}

function product(base: Float32Array | null, a: Float32Array, b: Float32Array, i: number): number {
  const origin = base === null ? 0 : base[i]!;
  return (a[i]! - origin) * (b[i]! - origin);
}

/**
 * out_i = sum over s of weights[s] sources[s]_i, in float64, rounded to float32 once. `out` is none of the sources.
 * Arrays of the arena, and views of them, go by SIMD, with the same bits.
 */
export function weightedSumInto(out: Float32Array, sources: readonly Float32Array[], weights: readonly number[]): void {
  let start = 0;
  const fast = sources.length <= MAX_TERMS ? kernelsFor(out, ...sources) : undefined;
  if (fast !== undefined) {
    start = out.length - (out.length % VECTOR);
    setTerms(sources, weights);
    fast.weightedSum(0, sources.length, start, out.byteOffset);
  }
  for (let i = start; i < out.length; i++) {
    let sum = 0;
    for (let s = 0; s < sources.length; s++) sum += weights[s]! * sources[s]![i]!;
    out[i] = sum;
  }
}

/**
 * As `weightedSumInto`, from bfloat16 bytes of the arena to such bytes, at most MAX_TERMS of them, in float32: off by at most
 * (sources + 1) 2^-24 of the sum of the absolute terms before it is rounded. Each call of what it gives sums the first `count`
 * elements of the sources as they are then, to those of `into` from `start` on, and returns whether all sums, and so all
 * sources, are finite; no other sum may come between.
 */
export function weightedSumsBfloat16(
  into: Uint8Array,
  sources: readonly Uint8Array[],
  weights: readonly number[],
): (start: number, count: number) => boolean {
  const kernels = kernelsFor(into, ...sources)!;
  setTerms(sources, weights);
  return (start, count) =>
    kernels.weightedSumBfloat16(0, sources.length, padded(count), into.byteOffset + 2 * start) === 0;
}

/** So many elements of a loop make V8 compile it again, for speed. */
const WARM_ELEMENTS = 2 ** 17;

/** Runs the kernels for bfloat16 on zeros: V8 makes their fast code in another thread, while there is no work for them yet. */
export function warmUp(): void {
  clearArena(4 * arenaBytes(WARM_ELEMENTS, 2));
  const zeros = () => allocateBytes(WARM_ELEMENTS, 2).fill(0);
  const [base, a, b] = [zeros(), zeros(), zeros()];
  productsBfloat16(base, a, b)(WARM_ELEMENTS);
  weightedSumsBfloat16(zeros(), [base, a, b], [1, 1, 1])(0, WARM_ELEMENTS);
}

function setTerms(sources: readonly ArrayBufferView[], weights: readonly number[]): void {
  const terms = firstBytes();
  for (const [s, source] of sources.entries()) {
    terms.setFloat64(16 * s, weights[s]!, true);
    terms.setUint32(16 * s + 8, source.byteOffset, true);
    terms.setFloat32(16 * s + 12, weights[s]!, true);
  }
}
