import { toFloat32 } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { ema, emaInto } from "../../merge/ema.js";
import { maxDifference, tensorsUnder, warp } from "./warp-fixture.js";

describe("ema", () => {
  test("moves the average by mu of the way to the policy", () => {
    const average = Float32Array.of(1, -4);
    expect([...ema(average, Float32Array.of(5, 0), 0.25)]).toEqual([2, -3]);
    expect([...average]).toEqual([1, -4]);
    emaInto(average, Float32Array.of(5, 0), 0.25);
    expect([...average]).toEqual([2, -3]);
  });

  test("mu 0 keeps the average, mu 1 takes the policy", () => {
    expect([...ema(Float32Array.of(1), Float32Array.of(3), 0)]).toEqual([1]);
    expect([...ema(Float32Array.of(1), Float32Array.of(3), 1)]).toEqual([3]);
  });

  test("agrees with the golden values over five steps", () => {
    const averages = new Map(tensorsUnder("init.").map(({ name, data }) => [name, toFloat32(data, "F32").slice()]));
    expect(averages.size).toBe(14);
    for (const step of [1, 2, 3, 4, 5]) {
      for (const { name, data } of tensorsUnder(`policy.${step}.`)) {
        emaInto(averages.get(name)!, toFloat32(data, "F32"), warp.mu);
      }
      for (const { name, data } of tensorsUnder(`ema.${step}.`)) {
        expect(maxDifference(averages.get(name)!, toFloat32(data, "F32")), `${step} ${name}`).toBeLessThan(1e-6);
      }
    }
  });

  test("refuses a mu outside 0 to 1 and arrays of different lengths", () => {
    const one = Float32Array.of(1);
    expect(() => ema(one, one, 1.5)).toThrow(new RangeError("mu should be a number from 0 to 1, got 1.5"));
    expect(() => ema(one, one, Number.NaN)).toThrow(new RangeError("mu should be a number from 0 to 1, got NaN"));
    expect(() => ema(one, Float32Array.of(1, 2), 0.5)).toThrow(
      new RangeError("average of 1 elements, policy of 2: expected the same length"),
    );
  });
});
