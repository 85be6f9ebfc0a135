// Weighted sums of bfloat16 tensors, which are read, added and stored in one go.
import { fromFloat32, toFloat32 } from "safetensors-ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Models, tensor } from "./plan-fixture.js";

/** More than a part, and no whole number of vectors. */
const SIZE = 2 ** 16 + 13;
const wave = (phase: number) => {
  const values = Float32Array.from({ length: SIZE }, (_, i) => Math.sin(3 * i) + 0.1 * Math.sin(phase * i));
  return [...toFloat32(fromFloat32(values, "BF16"), "BF16")];
};

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  for (const [phase, name] of ["base", "a", "b", "c"].entries()) {
    const values = wave(phase);
    await models.write(name, { "model.layers.0.w": tensor([SIZE], values, "BF16") });
    await models.write(`${name}32`, { "model.layers.0.w": tensor([SIZE], values) });
  }
});
afterAll(() => models.remove());

const recipe = (method: string, suffix: string) => {
  const hasBase = !["linear", "karcher"].includes(method);
  const names = method === "nuslerp" ? ["a", "b"] : method === "slerp" ? ["a"] : ["a", "b", "c"];
  const weigh = ["linear", "nuslerp", "multislerp", "task_arithmetic"].includes(method);
  return [
    `merge_method: ${method}`,
    ...(hasBase ? [`base_model: $base${suffix}`] : []),
    ...(method === "slerp" ? ["parameters: {t: 0.3}"] : []),
    "models:",
    ...names.map((name, i) => `- {model: $${name}${suffix}${weigh ? `, parameters: {weight: ${i + 1}}` : ""}}`),
    "out_dtype: bfloat16",
  ].join("\n");
};

const METHODS = ["linear", "task_arithmetic", "warp", "nuslerp", "slerp", "multislerp", "karcher", "model_stock"];

describe("bfloat16 models give the bits that float32 models of the same values give", () => {
  test.each(METHODS)("%s", async (method) => {
    const { tensors } = await models.merge(recipe(method, ""));
    const slow = await models.merge(recipe(method, "32"), "out32");
    expect(tensors).toEqual(slow.tensors);
  });
});

test("a value that is not finite is named by file, tensor and element, also where its weight is zero", async () => {
  const values = wave(2);
  values[SIZE - 1] = Number.NaN;
  await models.write("broken", { "model.layers.0.w": tensor([SIZE], values, "BF16") });
  const text =
    "merge_method: linear\nmodels:\n- {model: $a, parameters: {weight: 1}}\n- {model: $broken, parameters: {weight: 0}}";
  await expect(models.merge(text, "never")).rejects.toThrow(
    `${models.path("broken/model.safetensors")}: tensor "model.layers.0.w" holds NaN at element ${SIZE - 1}`,
  );
});
