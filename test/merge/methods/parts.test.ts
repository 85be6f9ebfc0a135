import { describe, expect, test } from "vitest";
import { METHODS, type MethodName } from "../../../merge/methods.js";
import { cutParts } from "../../../merge/parts.js";
import { mergeTensor } from "../../../merge/run-in-memory.js";
import { maxDifference } from "../warp-fixture.js";
import { settingsOf } from "./settings.js";

describe("cutParts", () => {
  const ranges = (shape: number[], needsRows: boolean, partElements: number) =>
    cutParts(shape, needsRows, partElements).map(({ start, length }) => [start, length]);

  test("holds as many whole rows as fit", () => {
    expect(ranges([5, 4], false, 10)).toEqual([
      [0, 8],
      [8, 8],
      [16, 4],
    ]);
  });

  test("cuts rows that do not fit, unless they are needed", () => {
    expect(ranges([2, 12], false, 10)).toEqual([
      [0, 10],
      [10, 10],
      [20, 4],
    ]);
    expect(ranges([2, 12], true, 10)).toEqual([
      [0, 12],
      [12, 12],
    ]);
    expect(ranges([25], false, 10)).toEqual([
      [0, 10],
      [10, 10],
      [20, 5],
    ]);
  });

  test("gives a scalar and a tensor without elements one part", () => {
    expect(ranges([], true, 10)).toEqual([[0, 1]]);
    expect(ranges([3, 0], true, 10)).toEqual([[0, 0]]);
  });

  test("says which part of what it is", () => {
    expect(cutParts([3, 2, 2], false, 4)[1]).toEqual({
      index: 1,
      parts: 3,
      start: 4,
      length: 4,
      shape: [3, 2, 2],
      columns: 2,
      elements: 12,
    });
  });
});

/** Values with many equal magnitudes: multiples of 1/8, as small integers are in bfloat16. */
const coarse = (seed: number, length: number) =>
  Float32Array.from({ length }, (_, i) => (((i * 2654435761 + seed * 40503) >>> 7) % 17) / 8 - 1);

describe("a method gives the same in one part and in many", () => {
  const shape = [37, 24];
  const length = 37 * 24;
  const base = coarse(1, length);
  const models = [coarse(2, length), coarse(3, length), coarse(4, length)];
  const weights = [{ weight: 0.5 }, { weight: 0.3 }, { weight: -0.4 }];
  const dense = weights.map((values, m) => ({ ...values, density: 0.3 + 0.2 * m }));

  const run = (
    method: MethodName,
    global: Record<string, boolean | number>,
    settings: Record<string, number>[],
    part: number,
  ) => {
    const used = models.slice(0, settings.length);
    return mergeTensor(METHODS[method], { base, models: used, shape }, settingsOf(method, global, settings, 5), part);
  };

  test.each<[MethodName, Record<string, boolean | number>, Record<string, number>[]]>([
    ["ties", {}, dense],
    ["breadcrumbs", {}, dense.map((values) => ({ ...values, gamma: 0.1 }))],
    ["breadcrumbs_ties", {}, dense.map((values) => ({ ...values, gamma: 0.1 }))],
    ["dare_linear", { rescale: false }, dense],
    ["dare_ties", { rescale: false }, dense],
    ["della", { rescale: false }, dense],
    ["della_linear", { rescale: false }, dense],
    ["arcee_fusion", {}, [{}]],
    ["nearswap", { t: 0.5 }, [{}]],
  ])("bit for bit: %s", (method, global, settings) => {
    const whole = run(method, global, settings, 2 ** 18);
    for (const part of [24, 100, 7]) expect(run(method, global, settings, part)).toEqual(whole);
  });

  test.each<[MethodName, Record<string, boolean | number>, Record<string, number>[]]>([
    ["sce", { select_topk: 0.3 }, [{}, {}, {}]],
    ["dare_ties", {}, dense],
    ["della", {}, dense],
    ["multislerp", {}, weights],
    ["model_stock", {}, [{}, {}, {}]],
    ["nuslerp", {}, weights.slice(0, 2)],
    ["nuslerp", { nuslerp_flatten: false, nuslerp_row_wise: true }, weights.slice(0, 2)],
    ["warp", {}, [{}, {}, {}]],
  ])("to 1e-6: %s", (method, global, settings) => {
    const whole = run(method, global, settings, 2 ** 18);
    for (const part of [24, 100, 7]) {
      expect(maxDifference(run(method, global, settings, part), whole)).toBeLessThan(1e-6);
    }
  });
});
