import { fromFloat32, toFloat32 } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import {
  allocateBytes,
  allocateFloats,
  arenaBytes,
  clearArena,
  decodeBfloat16,
  encodeBfloat16,
  isFiniteArray,
} from "../../merge/simd/arena.js";
import {
  dotOfDifferences,
  productsBfloat16,
  productsOfDifferences,
  weightedSumInto,
  weightedSumsBfloat16,
} from "../../merge/simd/sums.js";

/** Whole vectors, a last vector cut short, less than one vector. */
const LENGTHS = [64, 61, 3, 1];
const wave = (n: number, phase: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(3 * i + phase));
const inArena = (values: Float32Array) => {
  const floats = allocateFloats(values.length);
  floats.set(values);
  return floats;
};

/** Three waves as bfloat16, in the arena. */
const bfloat16Sources = (n: number) =>
  [0, 1, 2].map((phase) => {
    const source = allocateBytes(n, 2);
    source.set(fromFloat32(wave(n, phase), "BF16"));
    return source;
  });
const toFloats = (bytes: Uint8Array) => toFloat32(bytes.slice(), "BF16");

/**
 * aa, ab and bb in float32: of each 64 elements those at places i, i + 8, ... are added, then the sums of places 2k and
 * 2k + 1; in float64 then those of k = 0 and 2, and of 1 and 3, and what came before.
 */
function floatProducts(base: Float32Array, a: Float32Array, b: Float32Array): [number, number, number] {
  const round = Math.fround;
  const sumOf = (x: Float32Array, y: Float32Array) => {
    const sums = [0, 0];
    for (let start = 0; start < x.length; start += 64) {
      const block = new Float32Array(8);
      for (let i = start; i < Math.min(start + 64, x.length); i++) {
        const product = round(round(x[i]! - base[i]!) * round(y[i]! - base[i]!));
        block[i % 8] = block[i % 8]! + product;
      }
      const [k0, k1, k2, k3] = [0, 2, 4, 6].map((i) => round(block[i]! + block[i + 1]!)) as [
        number,
        number,
        number,
        number,
      ];
      sums[0]! += k0 + k2;
      sums[1]! += k1 + k3;
    }
    return sums[0]! + sums[1]!;
  };
  return [sumOf(a, a), sumOf(a, b), sumOf(b, b)];
}

describe("kernels on arrays of the arena give the bits of the loops on other arrays", () => {
  test.each(LENGTHS)("dot products of %i elements, with a base and without", (n) => {
    clearArena(5 * arenaBytes(n, 4));
    const [base, a, b] = [wave(n, 0), wave(n, 1), wave(n, 2)];
    const [base2, a2, b2] = [inArena(base), inArena(a), inArena(b)];
    expect(dotOfDifferences(base2, a2, b2)).toBe(dotOfDifferences(base, a, b));
    expect(dotOfDifferences(null, a2, b2)).toBe(dotOfDifferences(null, a, b));
    const products = [dotOfDifferences(base, a, a), dotOfDifferences(base, a, b), dotOfDifferences(base, b, b)];
    expect(productsOfDifferences(base2, a2, b2)).toEqual(products);
    expect(productsOfDifferences(base, a, b)).toEqual(products);
    const expected = a.reduce((sum, x, i) => sum + (x - base[i]!) * (b[i]! - base[i]!), 0);
    expect(dotOfDifferences(base, a, b)).toBeCloseTo(expected, 12);
  });

  test.each(LENGTHS)("weighted sums of %i elements", (n) => {
    clearArena(5 * arenaBytes(n, 4));
    const sources = [wave(n, 0), wave(n, 1), wave(n, 2)];
    const weights = [0.5, -2, 1 / 3];
    const plain = new Float32Array(n);
    weightedSumInto(plain, sources, weights);
    const fast = allocateFloats(n);
    weightedSumInto(fast, sources.map(inArena), weights);
    expect(fast).toEqual(plain);
    expect(plain[0]).toBe(Math.fround(0.5 * sources[0]![0]! - 2 * sources[1]![0]! + sources[2]![0]! / 3));
  });

  test.each([200, ...LENGTHS])("dot products of %i bfloat16 elements, in one go and in two", (n) => {
    clearArena(3 * arenaBytes(n, 2));
    const [base, a, b] = bfloat16Sources(n);
    const expected = floatProducts(toFloats(base!), toFloats(a!), toFloats(b!));
    expect(productsBfloat16(base!, a!, b!)(n)).toEqual(expected);
    const exact = productsOfDifferences(toFloats(base!), toFloats(a!), toFloats(b!));
    const add = productsBfloat16(base!, a!, b!);
    const first = Math.min(n, 128);
    add(first);
    for (const source of [base!, a!, b!]) source.copyWithin(0, 2 * first).fill(0, 2 * (n - first));
    expect(add(n - first)).toEqual(expected);
    const bound = 11 * 2 ** -24 * Math.max(exact[0], exact[2]);
    for (const [k, value] of exact.entries()) expect(Math.abs(value - expected[k]!)).toBeLessThanOrEqual(bound);
  });

  test("a dot product's error is within its bound where every rounding goes the same way", () => {
    clearArena(3 * arenaBytes(64, 2));
    // In float32 the difference is 1, and each of the squares that are added to it is half a step, lost.
    const at = (values: Record<number, number>) => {
      const bytes = allocateBytes(64, 2).fill(0);
      for (const [i, value] of Object.entries(values))
        bytes.set(fromFloat32(Float32Array.of(value), "BF16"), 2 * Number(i));
      return bytes;
    };
    const small = Object.fromEntries([8, 16, 24, 32, 40, 48, 56, 1].map((i) => [i, 2 ** -12]));
    const [base, a] = [at({ 0: -(2 ** -24) }), at({ 0: 1, ...small })];
    const exact = (1 + 2 ** -24) ** 2 + 8 * 2 ** -24;
    const [aa] = productsBfloat16(base, a, base)(64);
    expect((exact - aa) / exact).toBeGreaterThan(9.9 * 2 ** -24);
    expect((exact - aa) / exact).toBeLessThanOrEqual(11 * 2 ** -24);
  });

  test.each(LENGTHS)("weighted sums of %i bfloat16 elements", (n) => {
    clearArena(4 * arenaBytes(n, 2));
    const weights = [0.5, -2, 1 / 3];
    const sources = bfloat16Sources(n);
    const plain = new Float32Array(n);
    for (const [s, source] of sources.entries()) {
      const weight = Math.fround(weights[s]!);
      for (const [i, x] of toFloats(source).entries()) plain[i] = plain[i]! + Math.fround(weight * x);
    }
    const into = allocateBytes(n, 2);
    expect(weightedSumsBfloat16(into, sources, weights)(0, n)).toBe(true);
    expect(into).toEqual(fromFloat32(plain, "BF16"));
    sources[1]!.set(fromFloat32(Float32Array.of(Number.POSITIVE_INFINITY), "BF16"), 2 * (n - 1));
    expect(weightedSumsBfloat16(into, sources, weights)(0, n)).toBe(false);
    expect(weightedSumsBfloat16(into, sources, [1, 0, 1])(0, n)).toBe(false);
  });

  test.each(LENGTHS)("bfloat16 of %i elements, to and from", (n) => {
    clearArena(2 * arenaBytes(n, 4) + arenaBytes(n, 2));
    const values = inArena(wave(n, 0.1));
    const bytes = allocateBytes(n, 2);
    encodeBfloat16(values, bytes);
    expect(bytes).toEqual(fromFloat32(values.slice(), "BF16"));
    const decoded = allocateFloats(n);
    expect(decodeBfloat16(bytes, decoded)).toBe(true);
    expect(decoded).toEqual(toFloat32(bytes.slice(), "BF16"));
  });
});

describe("values that are not finite", () => {
  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])("%d is found wherever it is", (bad) => {
    for (const at of [0, 5, 8, 12]) {
      clearArena(3 * arenaBytes(13, 4));
      const values = inArena(wave(13, 0));
      expect(isFiniteArray(values)).toBe(true);
      values[at] = bad;
      expect(isFiniteArray(values)).toBe(false);
      const bytes = allocateBytes(13, 2);
      bytes.set(fromFloat32(values.slice(), "BF16"));
      expect(decodeBfloat16(bytes, allocateFloats(13))).toBe(false);
    }
  });

  test("what an earlier part has left behind an array is not looked at", () => {
    clearArena(arenaBytes(16, 4));
    allocateFloats(16).fill(Number.NaN);
    clearArena(arenaBytes(16, 4));
    const values = allocateFloats(5).fill(1);
    expect(isFiniteArray(values)).toBe(true);
    expect(dotOfDifferences(null, values, values)).toBe(5);
  });
});

test("an array that does not fit is an error", () => {
  clearArena(0);
  expect(() => allocateFloats(1_000_000)).toThrow(/^arena of \d+ bytes, \d+ are needed: clear it with more room$/);
});
