import { describe, expect, test } from "vitest";
import { RowRanks } from "../../../merge/methods/row-ranks.js";
import { dropAtRandom } from "../../../merge/random.js";

/** 1 where an element stays, 0 elsewhere. */
function drawn(count: number, seed: number, model: number, start: number, density: number): Int32Array {
  const bits = new Int32Array(count).fill(1);
  dropAtRandom(bits, count, { seed, model, start }, density);
  return bits;
}

const share = (bits: Int32Array) => bits.reduce((sum, bit) => sum + bit, 0) / bits.length;
const both = (a: Int32Array, b: Int32Array) => share(a.map((bit, i) => bit & b[i]!));

const COUNT = 2 ** 18;
/** Five standard deviations of a share of COUNT draws. */
const NEAR = 5 * Math.sqrt(0.25 / COUNT);

describe("dropAtRandom", () => {
  test.each([0.001, 0.1, 0.5, 0.9, 0.999])("keeps a share of %f", (density) => {
    for (const seed of [0, 1, 2 ** 31, 0xffffffff, -1]) {
      const deviation = Math.sqrt((density * (1 - density)) / COUNT);
      expect(Math.abs(share(drawn(COUNT, seed, 0, 0, density)) - density)).toBeLessThan(5 * deviation);
    }
  });

  test("draws independently for models, seeds, neighbours and rows", () => {
    const draws = drawn(COUNT, 1, 0, 0, 0.5);
    const others = [
      drawn(COUNT, 1, 1, 0, 0.5),
      drawn(COUNT, 1, 2, 0, 0.5),
      drawn(COUNT, 2, 0, 0, 0.5),
      drawn(COUNT, 0, 1, 0, 0.5),
      ...[1, 2, 3, 64, 2048, 2304, 2 ** 32].map((shift) => drawn(COUNT, 1, 0, shift, 0.5)),
    ];
    for (const other of others) expect(Math.abs(both(draws, other) - 0.25)).toBeLessThan(NEAR);
  });

  test("keeps with a smaller density a subset", () => {
    const few = drawn(1000, 3, 0, 0, 0.2);
    expect(both(few, drawn(1000, 3, 0, 0, 0.7))).toBe(share(few));
  });

  test("gives an element the same in any block, beyond 2^32 too", () => {
    const start = 2 ** 32 - 50;
    const whole = drawn(100, 7, 1, start, 0.5);
    for (const cut of [1, 49, 50, 51, 99]) {
      const halves = [...drawn(cut, 7, 1, start, 0.5), ...drawn(100 - cut, 7, 1, start + cut, 0.5)];
      expect(halves).toEqual([...whole]);
    }
  });

  test("fills runs of all lengths as often as coins do", () => {
    const draws = drawn(COUNT, 5, 0, 0, 0.5);
    const patterns = new Float64Array(256);
    for (let i = 0; i + 8 <= COUNT; i += 8) {
      patterns[draws.subarray(i, i + 8).reduce((code, bit) => 2 * code + bit, 0)]!++;
    }
    const expected = COUNT / 8 / 256;
    const chiSquare = patterns.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    // 255 degrees of freedom: 255 is expected, 370 is five standard deviations above it.
    expect(chiSquare).toBeLessThan(370);
    expect(chiSquare).toBeGreaterThan(160);
  });
});

describe("RowRanks", () => {
  test("ranks magnitudes, equal ones by place", () => {
    const row = Float32Array.of(9, 9, 0.5, -3, 0, -0.5, 3, 1e-30, 9);
    const ranks = new RowRanks(7).of(new Int32Array(row.buffer), 2);
    expect([...ranks]).toEqual([2, 4, 0, 3, 5, 1, 6]);
  });
});
