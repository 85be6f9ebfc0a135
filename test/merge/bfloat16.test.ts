// Merges that go from bfloat16 to bfloat16 without float32 in between.
import { fromFloat32, toFloat32 } from "safetensors-ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
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

describe("bfloat16 models give the bits that float32 models of the same values give", () => {
  test.each(Object.entries(RECIPES))("%s", async (_name, recipe) => {
    const { tensors } = await models.merge(recipe("BF16"));
    const { tensors: expected } = await models.merge(recipe("F32"));
    for (const [name, size] of Object.entries(SIZES)) {
      expect(tensors[name]!.length).toBe(size);
      expect(tensors[name]!.findIndex((value, i) => value !== expected[name]![i])).toBe(-1);
    }
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
