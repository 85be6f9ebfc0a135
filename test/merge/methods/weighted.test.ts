import { describe, expect, test } from "vitest";
import { combinePart, measurePart } from "../../../merge/method.js";
import { METHODS } from "../../../merge/methods.js";
import { merge, settingsOf } from "./settings.js";

const { SQRT1_2 } = Math;
/** To float32. */
const rounded = (...values: number[]) => values.map(Math.fround);

describe("linear", () => {
  test("is the average weighted by shares: 1/4 of 4 and 3/4 of 8", () => {
    const models = [{ weight: 1 }, { weight: 3 }];
    expect(merge("linear", { models: [[4], [8]] }, { models })).toEqual([7]);
  });

  test("sums without normalize", () => {
    const models = [{ weight: 1 }, { weight: 3 }];
    expect(merge("linear", { models: [[4], [8]] }, { models, global: { normalize: false } })).toEqual([28]);
  });

  test("does not divide by weights that sum to zero", () => {
    expect(merge("linear", { models: [[4], [8]] }, { models: [{ weight: 1 }, { weight: -1 }] })).toEqual([-4]);
  });

  test("takes 0 for a weight", () => {
    expect(merge("linear", { models: [[4], [8]] }, { models: [{ weight: 0 }, { weight: 2 }] })).toEqual([8]);
  });
});

describe("task_arithmetic", () => {
  const sources = {
    base: [1, 1],
    models: [
      [3, 1],
      [1, 5],
    ],
  }; // task vectors (2, 0) and (0, 4)

  test("adds weighted task vectors times lambda", () => {
    const models = [{ weight: 0.5 }, { weight: -1 }];
    expect(merge("task_arithmetic", sources, { models, global: { lambda: 2 } })).toEqual([3, -7]);
  });

  test("divides by the sum of the weights with normalize", () => {
    const models = [{ weight: 1 }, { weight: 3 }];
    expect(merge("task_arithmetic", sources, { models, global: { normalize: true } })).toEqual([1.5, 4]);
  });

  test("does not divide by weights that sum to zero", () => {
    const models = [{ weight: 1 }, { weight: -1 }];
    expect(merge("task_arithmetic", sources, { models, global: { normalize: true } })).toEqual([3, -3]);
  });

  test("of one model of weight 1 is that model, bit for bit", () => {
    const model = rounded(0.1, -1e-20, 3.3e7);
    expect(merge("task_arithmetic", { base: [7, 1e9, 1e-9], models: [model] }, { models: [{ weight: 1 }] })).toEqual(
      model,
    );
  });
});

describe("slerp", () => {
  test("goes half of the way from (1, 0) to (0, 1) along the circle", () => {
    const merged = merge("slerp", { base: [1, 0], models: [[0, 1]] }, { global: { t: 0.5 } });
    expect(merged).toEqual(rounded(SQRT1_2, SQRT1_2));
  });

  test("is the base at t = 0 and the model at t = 1", () => {
    const sources = { base: [3, 0, 1], models: [[0, 2, 1]] };
    expect(merge("slerp", sources, { global: { t: 0 } })).toEqual([3, 0, 1]);
    expect(merge("slerp", sources, { global: { t: 1 } })).toEqual([0, 2, 1]);
  });

  test("goes along the line above a cosine of 0.9995: (1, 0) and (1, 0.03)", () => {
    const merged = merge("slerp", { base: [1, 0], models: [[1, 0.03]] }, { global: { t: 0.25 } });
    expect(merged).toEqual(rounded(1, 0.0075));
  });

  test("goes along the line between opposite tensors", () => {
    expect(merge("slerp", { base: [1, 0], models: [[-1, 0]] }, { global: { t: 0.25 } })).toEqual([0.5, 0]);
  });

  test("takes a tensor of zeros for perpendicular: sin(pi/4) of the other", () => {
    const merged = merge("slerp", { base: [0, 0], models: [[0, 2]] }, { global: { t: 0.5 } });
    expect(merged).toEqual(rounded(0, Math.SQRT2));
  });
});

describe("nuslerp", () => {
  const equal = [{ weight: 1 }, { weight: 1 }];

  test("of task vectors (2, 0) and (0, 2) is sqrt(1/2) times their sum", () => {
    const merged = merge(
      "nuslerp",
      {
        base: [1, 1],
        models: [
          [3, 1],
          [1, 3],
        ],
      },
      { models: equal },
    );
    expect(merged).toEqual(rounded(1 + Math.SQRT2, 1 + Math.SQRT2));
  });

  test("goes weight_2 / (weight_1 + weight_2) of the way: a third of 90 degrees", () => {
    const merged = merge(
      "nuslerp",
      {
        models: [
          [1, 0],
          [0, 1],
        ],
      },
      { models: [{ weight: 1 }, { weight: 0.5 }] },
    );
    expect(merged).toEqual(rounded(Math.cos(Math.PI / 6), 0.5));
  });

  test("goes half of the way where the weights sum to zero", () => {
    const merged = merge(
      "nuslerp",
      {
        models: [
          [1, 0],
          [0, 1],
        ],
      },
      { models: [{ weight: 1 }, { weight: -1 }] },
    );
    expect(merged).toEqual(rounded(SQRT1_2, SQRT1_2));
  });

  test("averages on the line what is parallel or opposite", () => {
    expect(
      merge(
        "nuslerp",
        {
          models: [
            [1, 1],
            [3, 3],
          ],
        },
        { models: equal },
      ),
    ).toEqual([2, 2]);
    expect(
      merge(
        "nuslerp",
        {
          models: [
            [1, 1],
            [-3, -3],
          ],
        },
        { models: equal },
      ),
    ).toEqual([-1, -1]);
  });

  // Rows (1, 0), (0, 4) and (0, 1), (0, 2): the first pair is perpendicular, the second parallel.
  const matrices = {
    models: [
      [1, 0, 0, 4],
      [0, 1, 0, 2],
    ],
  };

  test("has an angle for each row without nuslerp_flatten", () => {
    const merged = merge("nuslerp", matrices, { models: equal, columns: 2, global: { nuslerp_flatten: false } });
    expect(merged).toEqual(rounded(SQRT1_2, SQRT1_2, 0, 3));
  });

  test("has an angle for each column with nuslerp_row_wise", () => {
    // Columns (1, 0), (0, 4) and (0, 0), (1, 2): zero counts as perpendicular; the cosine of the others is 2 / sqrt 5.
    const global = { nuslerp_flatten: false, nuslerp_row_wise: true };
    const merged = merge("nuslerp", matrices, { models: equal, columns: 2, global });
    const angle = Math.acos(2 / Math.sqrt(5));
    const weight = Math.sin(angle / 2) / Math.sin(angle);
    expect(merged[0]).toBeCloseTo(SQRT1_2, 6);
    expect(merged[1]).toBeCloseTo(weight, 6);
    expect(merged[2]).toBe(0);
    expect(merged[3]).toBeCloseTo(6 * weight, 6);
  });

  test.each<Record<string, boolean>>([
    { nuslerp_flatten: true },
    { nuslerp_flatten: false },
    { nuslerp_flatten: false, nuslerp_row_wise: true },
  ])("has one angle for a tensor of one axis: %o", (global) => {
    const merged = merge(
      "nuslerp",
      {
        models: [
          [1, 0],
          [0, 1],
        ],
      },
      { models: equal, global },
    );
    expect(merged).toEqual(rounded(SQRT1_2, SQRT1_2));
  });
});

describe("multislerp", () => {
  const ones = (count: number) => Array.from({ length: count }, () => ({ weight: 1 }));

  test("is of the mean direction and the mean length: (2, 0) and (0, 4) give 3 at 45 degrees", () => {
    const merged = merge(
      "multislerp",
      {
        models: [
          [2, 0],
          [0, 4],
        ],
      },
      { models: ones(2) },
    );
    expect(merged[0]).toBeCloseTo(3 * SQRT1_2, 6);
    expect(merged[1]).toBeCloseTo(3 * SQRT1_2, 6);
  });

  test("works on task vectors where there is a base", () => {
    const merged = merge(
      "multislerp",
      {
        base: [1, 1],
        models: [
          [3, 1],
          [1, 5],
        ],
      },
      { models: ones(2) },
    );
    expect(merged[0]).toBeCloseTo(1 + 3 * SQRT1_2, 6);
  });

  test("leaves its sources as they are", () => {
    const models = [Float32Array.of(2, 0), Float32Array.of(0, 4)];
    const part = {
      index: 0,
      parts: 1,
      start: 0,
      length: 2,
      shape: [2],
      columns: 2,
      elements: 2,
      base: Float32Array.of(1, 1),
      models,
    };
    measurePart(METHODS.multislerp.passes[0]!, part, settingsOf("multislerp", {}, ones(2)), []);
    combinePart(METHODS.multislerp, part, settingsOf("multislerp", {}, ones(2)), [[0.5, 0.5]], new Float32Array(2));
    expect(models).toEqual([Float32Array.of(2, 0), Float32Array.of(0, 4)]);
  });

  test("passes on a single model", () => {
    const parameters = { models: [{ weight: 0.5 }], global: { normalize_weights: false } };
    expect(merge("multislerp", { base: [1, 1], models: [[3, 1]] }, parameters)).toEqual([3, 1]);
  });

  test("averages two opposite vectors on the line", () => {
    expect(
      merge(
        "multislerp",
        {
          models: [
            [1, 0],
            [-3, 0],
          ],
        },
        { models: ones(2) },
      ),
    ).toEqual([-1, 0]);
  });

  test("keeps the base where no model changed anything", () => {
    expect(
      merge(
        "multislerp",
        {
          base: [1, 2],
          models: [
            [1, 2],
            [1, 2],
            [1, 2],
          ],
        },
        { models: ones(3) },
      ),
    ).toEqual([1, 2]);
  });

  test("refuses more than two vectors that cancel", () => {
    const models = [{ weight: 1 }, { weight: 1 }, { weight: 2 }];
    expect(() =>
      merge(
        "multislerp",
        {
          models: [
            [1, 0],
            [1, 0],
            [-1, 0],
          ],
        },
        { models },
      ),
    ).toThrow(
      new RangeError(
        "multislerp: 3 vectors with weights 0.25, 0.25, 0.5 cancel out, so they have no mean direction: expected other weights",
      ),
    );
  });

  test("does not divide by weights that sum to zero", () => {
    const merged = merge(
      "multislerp",
      {
        models: [
          [1, 0],
          [0, 3],
        ],
      },
      { models: [{ weight: 1 }, { weight: -1 }] },
    );
    // Direction (1, -1), length 1 - 3.
    expect(merged[0]).toBeCloseTo(-2 * SQRT1_2, 6);
    expect(merged[1]).toBeCloseTo(2 * SQRT1_2, 6);
  });
});

describe("karcher", () => {
  test("of three perpendicular vectors is their diagonal, of the mean length", () => {
    const merged = merge("karcher", {
      models: [
        [1, 0, 0],
        [0, 2, 0],
        [0, 0, 3],
      ],
    });
    for (const value of merged) expect(value).toBeCloseTo(2 / Math.sqrt(3), 6);
  });

  test("is the mean angle on a circle, not the angle of the mean: 0, 0 and 90 degrees give 30", () => {
    const merged = merge("karcher", {
      models: [
        [1, 0],
        [1, 0],
        [0, 1],
      ],
    });
    expect(merged[0]).toBeCloseTo(Math.cos(Math.PI / 6), 6);
    expect(merged[1]).toBeCloseTo(0.5, 6);
  });

  test("counts a tensor of zeros in the length alone", () => {
    expect(
      merge("karcher", {
        models: [
          [3, 0],
          [0, 0],
          [3, 0],
        ],
      }),
    ).toEqual([2, 0]);
    expect(
      merge("karcher", {
        models: [
          [0, 0],
          [0, 0],
        ],
      }),
    ).toEqual([0, 0]);
  });

  test("starts at the first of two opposite vectors, and stays", () => {
    expect(
      merge("karcher", {
        models: [
          [3, 0],
          [-1, 0],
        ],
      }),
    ).toEqual([2, 0]);
  });

  test("of one model is that model", () => {
    expect(merge("karcher", { models: [[3, 4]] })).toEqual([3, 4]);
  });
});

describe("model_stock", () => {
  test("draws the mean to the base by 2 cos / (1 + cos): at 60 degrees by 2/3", () => {
    const merged = merge("model_stock", {
      base: [1, 1],
      models: [
        [3, 1],
        [2, 1 + Math.sqrt(3)],
      ],
    });
    expect(merged[0]).toBeCloseTo(1 + (2 / 3) * 1.5, 6);
    expect(merged[1]).toBeCloseTo(1 + (2 / 3) * (Math.sqrt(3) / 2), 6);
  });

  test("knows the angle of the smallest changes", () => {
    const merged = merge("model_stock", {
      base: [0, 0],
      models: [
        [1e-5, 0],
        [1e-5, 0],
      ],
    });
    expect(merged).toEqual(rounded(1e-5, 0));
  });

  test("keeps the base between perpendicular, opposite and zero task vectors", () => {
    expect(
      merge("model_stock", {
        base: [1, 1],
        models: [
          [3, 1],
          [1, 3],
        ],
      }),
    ).toEqual([1, 1]);
    expect(
      merge("model_stock", {
        base: [1, 1],
        models: [
          [3, 1],
          [-1, 1],
        ],
      }),
    ).toEqual([1, 1]);
    expect(
      merge("model_stock", {
        base: [1, 1],
        models: [
          [3, 1],
          [1, 1],
        ],
      }),
    ).toEqual([1, 1]);
  });

  test("has a share for each row with filter_wise: rows that agree, and perpendicular ones", () => {
    const sources = {
      base: [0, 0, 0, 0],
      models: [
        [2, 0, 2, 0],
        [4, 0, 0, 2],
      ],
    };
    expect(merge("model_stock", sources, { columns: 2, global: { filter_wise: true } })).toEqual([3, 0, 0, 0]);
  });
});

describe("nearswap", () => {
  test("moves by t at most, and not beyond the model", () => {
    const merged = merge("nearswap", { base: [0, 0, 0, 1], models: [[0.5, 2, -2, 1]] }, { global: { t: 1 } });
    expect(merged).toEqual([0.5, 1, -1, 1]);
  });

  test("keeps the base with t of 0 and below", () => {
    expect(merge("nearswap", { base: [0, 1], models: [[0.5, 2]] }, { global: { t: -1 } })).toEqual([0, 1]);
  });
});

describe("passthrough", () => {
  test("multiplies by scale, and by nothing without it", () => {
    expect(merge("passthrough", { models: [[2, -4]] }, { models: [{ scale: 0.5 }] })).toEqual([1, -2]);
    expect(merge("passthrough", { models: [rounded(0.1, 1e-30)] })).toEqual(rounded(0.1, 1e-30));
  });
});

describe("ema", () => {
  test("of 0, 4 and 8 with mu 1/2 is 5", () => {
    expect(merge("ema", { models: [[0], [4], [8]] })).toEqual([5]);
  });

  test("is the first model with mu 0, the last with mu 1", () => {
    expect(merge("ema", { models: [[1], [4], [8]] }, { global: { mu: 0 } })).toEqual([1]);
    expect(merge("ema", { models: [[1], [4], [8]] }, { global: { mu: 1 } })).toEqual([8]);
  });
});

describe("warp", () => {
  test("goes eta of the way from the base to the SLERP of the task vectors", () => {
    const merged = merge(
      "warp",
      {
        base: [1, 1],
        models: [
          [3, 1],
          [1, 3],
        ],
      },
      { global: { eta: 0.5 } },
    );
    expect(merged).toEqual(rounded(1 + SQRT1_2, 1 + SQRT1_2));
  });

  test("sums over layers unless told otherwise", () => {
    expect(METHODS.warp.granularity!(settingsOf("warp", {}, [{}]))).toBe("layer");
    expect(METHODS.warp.granularity!(settingsOf("warp", { granularity: "model" }, [{}]))).toBe("model");
  });
});
