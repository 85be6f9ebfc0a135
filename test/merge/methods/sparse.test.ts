import { describe, expect, test } from "vitest";
import { METHODS, type MethodName } from "../../../merge/methods.js";
import { mergeTensor } from "../../../merge/run-in-memory.js";
import { merge, readGolden, settingsOf } from "./settings.js";

const zeros = (length: number) => new Array<number>(length).fill(0);

describe("ties", () => {
  test("keeps the largest, elects signs by weighted sums and averages what agrees", () => {
    const merged = merge(
      "ties",
      // Trimmed to three of four: (4, -3, 2, 0) and (0, 5, -6, 3).
      {
        base: [1, 1, 1, 1],
        models: [
          [5, -2, 3, 1.5],
          [1.5, 6, -5, 4],
        ],
      },
      {
        models: [
          { weight: 1, density: 0.75 },
          { weight: 0.5, density: 0.75 },
        ],
      },
    );
    // Sums 4, -0.5, -1, 1.5; of those who agree 4 / 1, -3 / 1, -3 / 0.5, 1.5 / 0.5.
    expect(merged).toEqual([5, -2, -5, 4]);
  });

  test("sums without normalize, times lambda", () => {
    const parameters = { models: [{ weight: 1 }, { weight: 3 }], global: { normalize: false, lambda: 0.5 } };
    expect(
      merge(
        "ties",
        {
          base: [0, 0],
          models: [
            [1, 1],
            [2, -1],
          ],
        },
        parameters,
      ),
    ).toEqual([3.5, -1.5]);
  });

  test("takes a sum of zero for positive", () => {
    const parameters = { models: [{ weight: 1 }, { weight: 1 }] };
    expect(merge("ties", { base: [1], models: [[3], [-1]] }, parameters)).toEqual([3]);
  });

  test("elects with negative weights the sign of the weighted task vector", () => {
    // -2 * 3 = -6 outvotes 1 * 1; divided by -2.
    const parameters = { models: [{ weight: -2 }, { weight: 1 }] };
    expect(merge("ties", { base: [0], models: [[3], [1]] }, parameters)).toEqual([3]);
  });

  test("leaves a model of weight 0 out, and a task vector of zeros", () => {
    const sources = {
      base: [1, 1],
      models: [
        [9, 9],
        [3, 1],
      ],
    };
    expect(merge("ties", sources, { models: [{ weight: 0 }, { weight: 0.5 }] })).toEqual([3, 1]);
  });

  test("keeps exactly floor(density n), the first of equal magnitudes, and one at least", () => {
    const models = [[1, -1, 1, 1, -1]];
    const kept = (density: number) => merge("ties", { base: zeros(5), models }, { models: [{ weight: 1, density }] });
    expect(kept(0.5)).toEqual([1, -1, 0, 0, 0]);
    expect(kept(0.01)).toEqual([1, 0, 0, 0, 0]);
    expect(kept(1)).toEqual(models[0]);
    expect(kept(0)).toEqual(zeros(5));
  });

  test("rescales to the L1 norm when told to: of 3 and 1 the 3 becomes 4", () => {
    const parameters = { models: [{ weight: 1, density: 0.5 }], global: { rescale: true } };
    expect(merge("ties", { base: [0, 0], models: [[3, 1]] }, parameters)).toEqual([4, 0]);
  });
});

describe("breadcrumbs", () => {
  const models = [[5, -4, 3, -2, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125]];
  const kept = (method: MethodName, density: number, gamma: number) =>
    merge(method, { base: zeros(10), models }, { models: [{ weight: 1, density, gamma }] });

  test.each<MethodName>(["breadcrumbs", "breadcrumbs_ties"])("%s drops the largest and the smallest", (method) => {
    expect(kept(method, 0.3, 0.2)).toEqual([0, 0, 3, -2, 1, 0, 0, 0, 0, 0]);
  });

  test("drops no large ones where gamma n is below 1", () => {
    expect(kept("breadcrumbs", 0.3, 0.01)).toEqual([5, -4, 3, 0, 0, 0, 0, 0, 0, 0]);
    expect(kept("breadcrumbs", 0.3, 0)).toEqual([5, -4, 3, 0, 0, 0, 0, 0, 0, 0]);
  });

  test("drops fewer large ones where the density would be missed", () => {
    expect(kept("breadcrumbs", 0.9, 0.5)).toEqual([0, -4, 3, -2, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125]);
  });

  test("keeps everything with density 1", () => {
    expect(kept("breadcrumbs", 1, 0.5)).toEqual(models[0]);
  });
});

/** A task vector of normal-like values, from a sum of uniform ones. */
const LENGTH = 2 ** 16;
const noise = (seed: number) => {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  return Float32Array.from({ length: LENGTH }, () => uniform() + uniform() + uniform());
};

const l1 = (values: Float32Array) => values.reduce((sum, x) => sum + Math.abs(x), 0);
const correlation = (a: Float32Array, b: Float32Array) => {
  const product = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return product(a, b) / Math.sqrt(product(a, a) * product(b, b));
};

describe.each<[MethodName, Record<string, number>]>([
  ["dare_linear", {}],
  ["dare_ties", {}],
  ["della_linear", { epsilon: 0.1 }],
  ["della", { epsilon: 0.1 }],
])("%s", (method, values) => {
  const base = new Float32Array(LENGTH);
  const run = (models: Float32Array[], density: number, global = {}, seed = 3) => {
    const settings = settingsOf(
      method,
      { normalize: false, ...global },
      models.map(() => ({ weight: 1, density, ...values })),
      seed,
    );
    return mergeTensor(METHODS[method], { base, models, shape: [LENGTH / 256, 256] }, settings);
  };

  test("keeps a share of density and, rescaled, the L1 norm", () => {
    const model = noise(1);
    for (const density of [0.2, 0.5, 0.8]) {
      const merged = run([model], density);
      const share = merged.filter((x) => x !== 0).length / LENGTH;
      expect(Math.abs(share - density)).toBeLessThan(0.01);
      expect(l1(merged) / l1(model)).toBeCloseTo(1, 5);
    }
  });

  test("leaves what it keeps as it is without rescale", () => {
    const model = noise(2);
    const merged = run([model], 0.5, { rescale: false });
    expect(merged.every((x, i) => x === 0 || x === model[i])).toBe(true);
  });

  test("drops other elements of each model and with each seed, the same each time", () => {
    const model = noise(3);
    const [kept, again, other] = [run([model], 0.5), run([model], 0.5), run([model], 0.5, {}, 4)];
    expect(again).toEqual(kept);
    // Masks that are independent share half of what they keep.
    expect(correlation(kept, other)).toBeGreaterThan(0.4);
    expect(correlation(kept, other)).toBeLessThan(0.65);
    const sum = run([model, model], 0.5, { rescale: false });
    const twice = sum.filter((x, i) => x === 2 * model[i]!).length / LENGTH;
    expect(Math.abs(twice - 0.25)).toBeLessThan(0.02);
  });

  test("is task arithmetic with density 1, and the base with density 0", () => {
    const models = [noise(5)];
    expect(run(models, 1)).toEqual(models[0]);
    expect(run(models, 0)).toEqual(base);
  });
});

describe("della", () => {
  const columns = 64;
  const rows = 4000;
  /** How often each rank of a row is kept. */
  const shares = (values: Record<string, number>) => {
    const row = Float32Array.from({ length: columns }, (_, i) => (i + 1) * (i % 2 === 0 ? 1 : -1));
    const model = Float32Array.from({ length: rows * columns }, (_, i) => row[i % columns]!);
    const settings = settingsOf("della_linear", { rescale: false }, [{ weight: 1, ...values }], 11);
    const sources = { base: new Float32Array(rows * columns), models: [model], shape: [rows, columns] };
    const merged = mergeTensor(METHODS.della_linear, sources, settings);
    return Array.from({ length: columns }, (_, c) => {
      let kept = 0;
      for (let r = 0; r < rows; r++) kept += merged[r * columns + c] === 0 ? 0 : 1;
      return kept / rows;
    });
  };

  test("keeps from density - epsilon of the smallest to density + epsilon of the largest", () => {
    const kept = shares({ density: 0.4, epsilon: 0.2 });
    for (const [rank, share] of kept.entries()) {
      expect(Math.abs(share - (0.2 + (0.4 * rank) / (columns - 1)))).toBeLessThan(0.04);
    }
  });

  test("keeps the only element of a row with probability density", () => {
    const model = new Float32Array(20_000).fill(1);
    const settings = settingsOf("della", { rescale: false }, [{ weight: 1, density: 0.3, epsilon: 0.1 }]);
    const merged = mergeTensor(
      METHODS.della,
      { base: new Float32Array(20_000), models: [model], shape: [20_000, 1] },
      settings,
    );
    expect(Math.abs(merged.reduce((sum, x) => sum + x, 0) / 20_000 - 0.3)).toBeLessThan(0.02);
  });

  test.each([
    [0.1, 0.15],
    [0.9, 0.15],
  ])("refuses probabilities that are none: density %f, epsilon %f", (density, epsilon) => {
    const settings = settingsOf("della", {}, [{ weight: 1, density, epsilon }]);
    expect(() => METHODS.della.check!(settings)).toThrow(
      new RangeError(
        `della: density ${density} with epsilon ${epsilon} gives probabilities from ${density - epsilon} to ${density + epsilon}: expected them between 0 and 1, both excluded`,
      ),
    );
  });

  test("takes any epsilon where all or nothing is kept", () => {
    METHODS.della.check!(
      settingsOf("della", {}, [
        { weight: 1, density: 1 },
        { weight: 1, density: 0, epsilon: 0.5 },
      ]),
    );
  });
});

describe.each(["dare-linear", "dare-ties", "della"])("%s of mergekit", (file) => {
  const method = file.replace("-", "_") as MethodName;
  const extra: Record<string, number> = method === "della" ? { epsilon: 0.1 } : {};
  const settings = settingsOf(method, {}, [
    { weight: 0.6, density: 0.5, ...extra },
    { weight: 0.4, density: 0.5, ...extra },
  ]);
  const [base, a, b] = ["base", "a", "b"].map((name) => readGolden(`models/${name}/model`));

  test("has the same statistics: share of changed elements, norms, direction", () => {
    for (const [name, { values, shape }] of readGolden(`expected/${file}`)) {
      if (values.length < 1000) continue;
      const from = base!.get(name)!.values;
      const models = [a!.get(name)!.values, b!.get(name)!.values];
      const change = (merged: Float32Array) => merged.map((x, i) => x - from[i]!);
      const theirs = change(values);
      const ours = change(mergeTensor(METHODS[method], { base: from, models, shape }, settings));
      const changed = (delta: Float32Array) => delta.filter((x) => x !== 0).length / delta.length;
      expect(Math.abs(changed(ours) - changed(theirs)), name).toBeLessThan(0.06);
      expect(Math.abs(Math.log(l1(ours) / l1(theirs))), name).toBeLessThan(0.1);
      const whole = models[0]!.map((x, i) => 0.6 * (x - from[i]!) + 0.4 * (models[1]![i]! - from[i]!));
      expect(Math.abs(correlation(ours, whole) - correlation(theirs, whole)), name).toBeLessThan(0.06);
    }
  });
});

describe("sce", () => {
  test("selects by variance, weighs by squares and drops the minority", () => {
    // Variances 4, 0.25, 1, 0: with 0.7 of three the first and the third stay, (3, 1) and (-1, 3).
    const sources = {
      base: zeros(4),
      models: [
        [3, 1, 1, 2],
        [-1, 2, 3, 2],
      ],
    };
    // Squares 10 and 10: weights 1/2. Sums 2 and 4: the -1 is erased.
    expect(merge("sce", sources, { global: { select_topk: 0.7 } })).toEqual([3, 0, 2, 0]);
  });

  test("weighs small changes by their squares too", () => {
    // Squares 1e-10 and 9e-10: (0.1 * 1 + 0.9 * 3) 1e-5.
    const merged = merge("sce", { base: [0], models: [[1e-5], [3e-5]] });
    expect(merged[0]! * 1e5).toBeCloseTo(2.8, 5);
  });

  test("keeps the base where nothing is selected", () => {
    const sources = {
      base: [1, 1],
      models: [
        [3, 1],
        [1, 3],
      ],
    };
    expect(merge("sce", sources, { global: { select_topk: 0 } })).toEqual([1, 1]);
    expect(merge("sce", sources, { global: { select_topk: 0.4 } })).toEqual([1, 1]);
    expect(
      merge(
        "sce",
        {
          base: [1, 1],
          models: [
            [3, 1],
            [3, 1],
          ],
        },
        { global: { select_topk: 0.9 } },
      ),
    ).toEqual([1, 1]);
    expect(
      merge("sce", {
        base: [1, 1],
        models: [
          [1, 1],
          [1, 1],
        ],
      }),
    ).toEqual([1, 1]);
  });

  test("finds no variance in three equal task vectors", () => {
    const model = [1.1, 2.3, 0.7].map(Math.fround);
    const sources = { base: [0.1, 0.2, 0.3].map(Math.fround), models: [model, model, model] };
    expect(merge("sce", sources, { global: { select_topk: 0.9 } })).toEqual(sources.base);
  });
});

describe("arcee_fusion", () => {
  test("takes over what is at least 1.5 interquartile ranges above the median", () => {
    // One row, so one divergence: importances are as |difference|: 1, 2, 3, 4, 100, quartiles 2, 3, 4, cut at 6.
    const base = zeros(5);
    expect(merge("arcee_fusion", { base, models: [[0.01, -0.02, 0.03, -0.04, 1]] })).toEqual([0, 0, 0, 0, 1]);
  });

  test("weighs rows by how far their softmax moves: adding the same to a row moves nothing", () => {
    // Importances 0 four times, k, k / 100, k / 50, k / 40: quartiles 0, 0, k / 50, cut at 3 k / 100.
    const merged = merge(
      "arcee_fusion",
      { base: zeros(8), models: [[5, 5, 5, 5, 1, 0.01, 0.02, 0.025]] },
      { columns: 4 },
    );
    expect(merged.slice(0, 4)).toEqual(zeros(4));
    expect(merged.slice(4)).toEqual([1, 0, 0, 0]);
  });

  test("of equal weights is the base", () => {
    expect(merge("arcee_fusion", { base: [1, 2], models: [[1, 2]] })).toEqual([1, 2]);
  });
});
