// What a plan amounts to, in numbers that a reader can add up.
import { stat } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { sizeOf } from "../../merge/plan-size.js";
import { Models, stack, tensor } from "./plan-fixture.js";

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  for (const name of ["a", "b"]) {
    const tensors = { "layers.0.w": tensor([2, 3], Array(6).fill(1)), mask: tensor([5], [1, 1, 1, 1, 1], "I8") };
    await models.write(name, tensors, { num_hidden_layers: 1 });
  }
});
afterAll(() => models.remove());

const sizes = async (text: string, shardSize = 1e9) => sizeOf((await models.plan(text)).plan, shardSize);
const karcher = (...names: string[]) => `merge_method: karcher\nmodels: [${names.map((x) => `{model: ${x}}`)}]\n`;
const linear = (...names: string[]) =>
  `merge_method: linear\nparameters: {weight: 1}\nmodels: [${names.map((x) => `{model: ${x}}`)}]\n`;

describe("the size of a plan", () => {
  test("is that of its tensors, as they are read and as they are stored", async () => {
    // 2 models of 6 float32 and 5 bytes; 6 bfloat16 and 5 bytes.
    expect(await sizes(`${linear("$a", "$b")}dtype: bfloat16\n`)).toMatchObject({
      tensors: 2,
      parameters: 11,
      bytesRead: 2 * (6 * 4 + 5),
      readings: 1,
      bytesWritten: 6 * 2 + 5,
    });
  });

  test("counts what a tensor is made of once, and layers that are stacked twice twice", async () => {
    expect((await sizes(linear("$a", "$a", "$b"))).bytesRead).toBe(58);
    expect((await sizes(stack(["$a", 0, 1], ["$b", 0, 1], ["$a", 0, 1]))).bytesRead).toBe(3 * 24 + 5);
  });

  test("has a reading for each pass of the merges within each other", async () => {
    const inner = `{${karcher("$a", "$b").trim().replace("\n", ", ")}}`;
    const one = (await sizes(karcher("$a", "$b"))).readings;
    expect(one).toBeGreaterThan(1);
    expect((await sizes(linear(inner, "$a"))).readings).toBe(one);
    expect((await sizes(karcher(inner, "$a"))).readings).toBe(2 * one - 1);
  });

  test("has the files that are then written", async () => {
    const text = linear("$a", "$b");
    const { shards, bytesWritten } = await sizes(text, 24);
    expect(shards.map(({ name, tensors }) => [name, tensors])).toEqual([
      ["model-00001-of-00002.safetensors", 1],
      ["model-00002-of-00002.safetensors", 1],
    ]);
    expect(bytesWritten).toBe(29);
    await mergeRecipe({ recipe: await models.recipe(text), out: models.path("out"), workers: 0, shardSize: 24 });
    for (const { name, bytes } of shards) expect((await stat(models.path(`out/${name}`))).size).toBe(bytes);
  });
});
