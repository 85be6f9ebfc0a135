// Merges that go from bfloat16 to bfloat16 without float32 in between.
import { fromFloat32, toFloat32 } from "safetensors-ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { Models, tensor } from "./plan-fixture.js";

/** More than a part and a block; no whole number of vectors. */
const SIZES = { "layers.0.long": 2 ** 19 + 2 ** 17 + 4, "layers.1.odd": 13 };

const tensorsOf = (phase: number, dtype: "BF16" | "F32") => {
  const entries = Object.entries(SIZES).map(([name, size]) => {
    const values = Float32Array.from({ length: size }, (_, i) => Math.sin(3 * i) + 0.1 * Math.sin(phase * i));
    return [name, tensor([size], [...toFloat32(fromFloat32(values, "BF16"), "BF16")], dtype)] as const;
  });
  return Object.fromEntries(entries);
};

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  for (const [phase, name] of ["base", "a", "b", "c"].entries()) {
    await models.write(`${name}-BF16`, tensorsOf(phase, "BF16"));
    await models.write(`${name}-F32`, tensorsOf(phase, "F32"));
  }
});
afterAll(() => models.remove());

const linear = (dtype: string) => `merge_method: linear
models: [{model: $a-${dtype}, parameters: {weight: 1}}, {model: $b-${dtype}, parameters: {weight: 2}}]
out_dtype: bfloat16
`;
const karcher = (dtype: string) => `merge_method: karcher
models: [{model: $a-${dtype}}, {model: $b-${dtype}}]
out_dtype: bfloat16
`;
const slerp = (dtype: string) => `merge_method: slerp
base_model: $base-${dtype}
models: [{model: $a-${dtype}}]
parameters: {t: 0.3}
out_dtype: bfloat16
`;
const warp =
  (...names: readonly string[]) =>
  (dtype: string) =>
    `merge_method: warp
base_model: $base-${dtype}
models: [${names.map((name) => `{model: $${name}-${dtype}}`).join(", ")}]
out_dtype: bfloat16
`;
const RECIPES = { linear, karcher, slerp, "warp of two": warp("a", "b"), "warp of three": warp("a", "b", "c") };

/** Half the distance between two bfloat16 at a value of this size: 8 bits from the first on, 7 of them behind it. */
const halfStep = (value: number) => 2 ** (Math.floor(Math.log2(Math.abs(value))) - 8);
/** (n + 1) 2^-24 of the absolute terms, which are below 4 here. */
const FLOAT32_ERROR = 2 ** -20;

describe("bfloat16 models give what float32 models of the same values give, summed in float32 and rounded once", () => {
  test.each(Object.entries(RECIPES))("%s", async (_name, recipe) => {
    const { tensors } = await models.merge(recipe("BF16"));
    const { tensors: exact } = await models.merge(recipe("F32").replace("bfloat16", "float32"));
    for (const [name, size] of Object.entries(SIZES)) {
      const [stored, expected] = [tensors[name]!, exact[name]!];
      expect(stored.length).toBe(size);
      const isFar = (value: number, i: number) =>
        Math.abs(value - expected[i]!) > halfStep(expected[i]!) + FLOAT32_ERROR;
      expect(stored.findIndex(isFar)).toBe(-1);
    }
  });
});

test("measuring the geometry changes no bit", async () => {
  const { tensors } = await models.merge(warp("a", "b")("BF16"));
  const recipe = await models.recipe(warp("a", "b")("BF16"));
  await mergeRecipe({ recipe, out: models.path("measured"), isMeasured: true });
  expect(await models.read("measured")).toEqual(tensors);
});

describe("dot products of bfloat16 task vectors", () => {
  const angle = async (step: number, dtype: "BF16" | "F32") => {
    // Orthogonal task vectors of equal length: SLERP gives both 1 / sqrt 2.
    const one = Array.from({ length: 64 }, (_, i) => (i % 2 === 0 ? step : 0));
    const other = one.map((value) => step - value);
    await models.write("zero", { "layers.0.w": tensor([64], new Array<number>(64).fill(0), dtype) });
    await models.write("one", { "layers.0.w": tensor([64], one, dtype) });
    await models.write("other", { "layers.0.w": tensor([64], other, dtype) });
    const recipe = `merge_method: warp
base_model: $zero
models: [{model: $one}, {model: $other}]
parameters: {eta: 1}
out_dtype: ${dtype === "BF16" ? "bfloat16" : "float32"}
`;
    return (await models.merge(recipe)).tensors["layers.0.w"]![0]! / step;
  };

  test.each([1, 2 ** -100])("of elements of %d, whose squares float32 may not hold", async (step) => {
    expect(await angle(step, "F32")).toBeCloseTo(Math.SQRT1_2, 6);
    expect(await angle(step, "BF16")).toBe(0.70703125); // rounded to bfloat16
  });

  test("of models that are their base", async () => {
    expect(await angle(0, "BF16")).toBeNaN();
  });
});

describe("a value that is not finite is named by file, tensor and element", () => {
  test.each([
    ["linear", linear, "layers.0.long", 600_000],
    ["warp", warp("a", "b"), "layers.1.odd", 12],
  ] as const)("%s", async (_name, recipe, name, at) => {
    const tensors = tensorsOf(2, "F32");
    const values = new Float32Array((tensors[name]!.data as Uint8Array).buffer);
    values[at] = Number.NaN;
    await models.write("broken-BF16", {
      ...tensorsOf(2, "BF16"),
      [name]: tensor([values.length], [...values], "BF16"),
    });
    await expect(models.merge(recipe("BF16").replace("$b-", "$broken-"), "never")).rejects.toThrow(
      `${models.path("broken-BF16/model.safetensors")}: tensor "${name}" holds NaN at element ${at}`,
    );
  });
});
