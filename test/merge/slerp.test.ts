import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { liti } from "../../merge/liti.js";
import { lerpWeights, slerp, slerpWeights } from "../../merge/slerp.js";
import { addProducts, addTaskVectors, noProducts, weightedNorm } from "../../merge/task-vectors.js";
import { warp } from "./warp-fixture.js";

const identity = (size: number) => noProducts(size).map((row, i) => row.map((_, j) => (i === j ? 1 : 0)));

describe("slerp", () => {
  test("of perpendicular task vectors of length 1 has length 1: init (1, 1), runs (2, 1) and (1, 2)", () => {
    const { merged, angles } = slerp(Float32Array.of(1, 1), [Float32Array.of(2, 1), Float32Array.of(1, 2)]);
    expect([...merged]).toEqual([Math.fround(1 + Math.SQRT1_2), Math.fround(1 + Math.SQRT1_2)]);
    expect(angles).toEqual([Math.PI / 2]);
  });

  test("does not normalise: of (3, 0) and (0, 1) it is sqrt(1/2) times the sum", () => {
    const { merged } = slerp(Float32Array.of(0, 0), [Float32Array.of(3, 0), Float32Array.of(0, 1)]);
    expect([...merged]).toEqual([Math.fround(3 * Math.SQRT1_2), Math.fround(Math.SQRT1_2)]);
  });

  test("at 60 degrees weighs both by sin 30 / sin 60 = 1 / sqrt 3", () => {
    const { weights, angles } = slerpWeights([
      [1, 0.5],
      [0.5, 1],
    ]);
    expect(weights[0]).toBeCloseTo(1 / Math.sqrt(3), 12);
    expect(weights[1]).toBeCloseTo(1 / Math.sqrt(3), 12);
    expect(angles[0]).toBeCloseTo(Math.PI / 3, 12);
  });

  test.each([2, 3, 4])("of %i orthonormal task vectors has the paper's fold of weights and length 1", (runs) => {
    const { weights, angles } = slerpWeights(identity(runs));
    for (const [m, weight] of warp.orthonormal[runs]!.entries()) expect(weights[m]).toBeCloseTo(weight, 12);
    expect(angles).toHaveLength(runs - 1);
    expect(weightedNorm(identity(runs), weights)).toBeCloseTo(1, 12);
  });

  test("of one run is the run", () => {
    const { merged, angles } = slerp(Float32Array.of(1, 2), [Float32Array.of(3, 5)]);
    expect([...merged]).toEqual([3, 5]);
    expect(angles).toEqual([]);
  });

  test("averages on the line what has no arc between: zero, parallel, opposite", () => {
    const init = Float32Array.of(1, 1);
    const moved = Float32Array.of(3, 1);
    expect(slerp(init, [init, moved])).toEqual({ merged: Float32Array.of(2, 1), angles: [null] });
    expect(slerp(init, [moved, Float32Array.of(5, 1)])).toEqual({ merged: Float32Array.of(4, 1), angles: [0] });
    expect(slerp(init, [moved, Float32Array.of(-3, 1)])).toEqual({ merged: Float32Array.of(0, 1), angles: [Math.PI] });
  });

  test("averages three frozen tensors, or two and one that moved, on the line", () => {
    const init = Float32Array.of(1);
    expect(slerp(init, [init, init, init])).toEqual({ merged: init, angles: [null, null] });
    const { weights, angles } = slerpWeights([
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 4],
    ]);
    for (const weight of weights) expect(weight).toBeCloseTo(1 / 3, 12);
    expect(angles).toEqual([null, null]);
  });

  test("sees task vectors that float32 sums would lose: 2^22 elements of 1e-5 beside one of 1", () => {
    const size = 2 ** 22;
    const init = new Float32Array(size + 1);
    const a = new Float32Array(size + 1).fill(1e-5);
    a[size] = 1;
    const b = init.slice();
    b[size] = 1;
    const { angles } = slerp(init, [a, b]);
    const small = Math.fround(1e-5);
    expect(angles[0]).toBeCloseTo(Math.acos(1 / Math.sqrt(1 + size * small * small)), 9);
  });

  test("of two equally long task vectors is as long as they are, and not shorter than the average", () => {
    const angle = fc.double({ min: 0.01, max: 3.1, noNaN: true });
    fc.assert(
      fc.property(angle, (omega) => {
        const products = [
          [1, Math.cos(omega)],
          [Math.cos(omega), 1],
        ];
        expect(weightedNorm(products, slerpWeights(products).weights)).toBeCloseTo(1, 9);
        expect(weightedNorm(products, lerpWeights(2))).toBeCloseTo(Math.cos(omega / 2), 9);
      }),
    );
  });
});

describe("addProducts", () => {
  test("adds up over the parts of a group", () => {
    const products = noProducts(2);
    addProducts(products, Float32Array.of(1), [Float32Array.of(2), Float32Array.of(3)]);
    addProducts(products, Float32Array.of(0), [Float32Array.of(3), Float32Array.of(-1)]);
    expect(products).toEqual([
      [1 + 9, 2 - 3],
      [2 - 3, 4 + 1],
    ]);
  });

  test("refuses a run of another length", () => {
    expect(() => addProducts(noProducts(1), Float32Array.of(1), [Float32Array.of(1, 2)])).toThrow(
      new RangeError("init of 1 elements, run of 2: expected the same length"),
    );
  });
});

describe("lerpWeights", () => {
  test("average: of (1, 0) and (0, 1) the length is sqrt(1/2)", () => {
    expect(lerpWeights(2)).toEqual([0.5, 0.5]);
    expect(weightedNorm(identity(2), lerpWeights(2))).toBeCloseTo(Math.SQRT1_2, 12);
  });
});

describe("liti", () => {
  test("goes eta of the way from the init to the model", () => {
    expect([...liti(Float32Array.of(1, 2), Float32Array.of(5, 0), 0.25)]).toEqual([2, 1.5]);
  });

  test("eta 0 is the init, eta 1 the model, bit for bit", () => {
    const weight = fc.float({ noNaN: true, noDefaultInfinity: true, min: -8, max: 8 });
    fc.assert(
      fc.property(weight, weight, (a, b) => {
        const [init, model] = [Float32Array.of(a), Float32Array.of(b)];
        expect(liti(init, model, 0)[0] === init[0]).toBe(true);
        expect(liti(init, model, 1)[0] === model[0]).toBe(true);
      }),
    );
  });

  test("refuses an eta outside 0 to 1", () => {
    const one = Float32Array.of(1);
    expect(() => liti(one, one, -0.1)).toThrow(new RangeError("eta should be a number from 0 to 1, got -0.1"));
  });

  test("after SLERP is one weighted sum", () => {
    const init = Float32Array.of(1, 1);
    const runs = [Float32Array.of(2, 1), Float32Array.of(1, 2)];
    const { merged } = slerp(init, runs);
    const weights = [0.3 * Math.SQRT1_2, 0.3 * Math.SQRT1_2];
    expect(addTaskVectors(init, runs, weights)[0]).toBeCloseTo(liti(init, merged, 0.3)[0]!, 6);
  });
});
