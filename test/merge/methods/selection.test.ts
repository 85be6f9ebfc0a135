import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Method, Part, Settings } from "../../../merge/method.js";
import { mergeTensor } from "../../../merge/run-in-memory.js";
import { cutsOf, dropAbove, keepAbove, scoreOf, selectionPasses, startCut } from "../../../merge/selection.js";

const settings: Settings = { global: {}, models: [{}], seed: 0 };

/** A method that keeps the elements whose magnitudes have ranks above `first` up to `last`, and makes others 0. */
const selecting = (first: number, last: number): Method => ({
  description: "",
  base: "none",
  global: {},
  model: {},
  passes: selectionPasses({
    isNeeded: () => true,
    sources: () => 1,
    scorer:
      ({ models }: Part) =>
      (start, count, scores) =>
        scores.set(models[0]!.subarray(start, start + count)),
    ranks: () => [first, last],
  }),
  combine({ models, index }, _settings, known, out) {
    const [upper, lower] = cutsOf(known).map((cut) => startCut(cut, index));
    out.set(models[0]!);
    const bits = new Int32Array(out.buffer, out.byteOffset, out.length);
    keepAbove(bits, out.length, lower!);
    dropAbove(bits, out.length, upper!);
  },
});

/** What `selecting` promises, by sorting. */
function sorted(values: readonly number[], first: number, last: number): number[] {
  const order = values.map((_, i) => i).sort((a, b) => Math.abs(values[b]!) - Math.abs(values[a]!) || a - b);
  const kept = new Set(order.slice(first, last));
  return values.map((value, i) => (kept.has(i) ? value : 0));
}

const select = (values: readonly number[], first: number, last: number, partElements = 2 ** 18) => [
  ...mergeTensor(
    selecting(first, last),
    { base: null, models: [Float32Array.from(values)], shape: [values.length] },
    settings,
    partElements,
  ),
];

describe("selection by rank", () => {
  test("keeps exactly k, of equal magnitudes the first", () => {
    expect(select([1, -2, 2, 3, -2, 0.5], 0, 3)).toEqual([0, -2, 2, 3, 0, 0]);
    expect(select([2, -2, 2, -2], 1, 3)).toEqual([0, -2, 2, 0]);
  });

  test("keeps nothing, everything and zeros as they are", () => {
    expect(select([1, -2], 0, 0)).toEqual([0, 0]);
    expect(select([1, -2], 0, 2)).toEqual([1, -2]);
    expect(select([0, 0, 0, 5], 0, 3)).toEqual([0, 0, 0, 5]);
    expect(select([0, 0, 0], 1, 2)).toEqual([0, 0, 0]);
  });

  test("tells float32 neighbours apart, the smallest and the largest too", () => {
    const next = (x: number) =>
      new Float32Array(Int32Array.of(new Int32Array(Float32Array.of(x).buffer)[0]! + 1).buffer)[0]!;
    expect(select([1, next(1), 1], 0, 1)).toEqual([0, next(1), 0]);
    expect(select([2 ** -149, 2 ** -148, 3.4e38, 2 ** -149].map(Math.fround), 0, 3)).toEqual(
      [2 ** -149, 2 ** -148, 3.4e38, 0].map(Math.fround),
    );
  });

  test("is that of a stable sort, in any parts", () => {
    const value = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.float({ noNaN: true, noDefaultInfinity: true }));
    const values = fc.array(value, { minLength: 1, maxLength: 60 }).map((list) => list.map((x) => Math.fround(x) + 0));
    fc.assert(
      fc.property(values, fc.nat(60), fc.nat(60), fc.integer({ min: 1, max: 61 }), (list, a, b, partElements) => {
        const [first, last] = [Math.min(a, b, list.length), Math.min(Math.max(a, b), list.length)];
        expect(select(list, first, last, partElements)).toEqual(sorted(list, first, last));
      }),
      { numRuns: 60 },
    );
  });

  test("knows the score of a rank", () => {
    const [pass, next] = selecting(1, 2).passes;
    const values = Float32Array.of(4, -7, 5.5, 0);
    const part = {
      index: 0,
      parts: 1,
      start: 0,
      length: 4,
      shape: [4],
      columns: 4,
      elements: 4,
      base: null,
      models: [values],
    };
    const bins = pass!.conclude(new Float64Array(pass!.measure!(part, settings, [])), settings, []);
    const bits = next!.conclude(new Float64Array(next!.measure!(part, settings, [bins])), settings, [bins]);
    expect(cutsOf([bins, bits, []]).map(scoreOf)).toEqual([7, 5.5]);
  });
});
