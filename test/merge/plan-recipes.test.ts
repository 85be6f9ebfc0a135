// Plans of the recipes in test/fixtures/mergekit: tensors as mergekit wrote them, and parameters that a reader can redo.
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "safetensors-ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makePlan } from "../../merge/make-plan.js";
import type { ParameterValue } from "../../merge/method.js";
import type { MergeSource } from "../../merge/plan.js";
import { readRecipe } from "../../merge/recipe.js";

const fixtures = fileURLToPath(new URL("../fixtures/mergekit", import.meta.url));
const RECIPES = readdirSync(`${fixtures}/recipes`).map((file) => file.replace(/\.yml$/, ""));
const before = process.cwd();
// The recipes name models relative to where mergekit was started.
beforeAll(() => process.chdir(fixtures));
afterAll(() => process.chdir(before));

const planOf = async (name: string) => makePlan(await readRecipe(`recipes/${name}.yml`), { seed: 0 });

test.each(RECIPES)("%s: the names, shapes and dtypes that mergekit stores", async (name) => {
  const { plan } = await planOf(name);
  const expected = await openCheckpoint(`expected/${name}.safetensors`);
  await expected.close();
  const described = (tensors: readonly { name: string; dtype: string; shape: readonly number[] }[]) =>
    tensors.map(({ name, dtype, shape }) => `${name} ${dtype} ${shape}`).sort();
  expect(described(plan.tensors)).toEqual(described(expected.tensors));
});

describe("parameters of three layers", () => {
  const settingsOf = async (recipe: string) => {
    const { plan } = await planOf(recipe);
    const sources = new Map(plan.tensors.map(({ name, source }) => [name, source as MergeSource]));
    return (name: string) => sources.get(name)!.settings;
  };
  const near = (x: number) => expect.closeTo(x, 12);
  const layers = (name: string) => [0, 1, 2].map((layer) => `model.layers.${layer}.${name}.weight`);

  test("linear-gradient: knots on the layers, and a filter with two knots", async () => {
    const settings = await settingsOf("linear-gradient");
    const weights = (name: string) => settings(name).models.map(({ weight }) => weight as ParameterValue);
    expect(layers("mlp.up_proj").map(weights)).toEqual([
      [near(0.1), near(0.9)],
      [near(0.5), near(0.55)],
      [near(0.9), near(0.2)],
    ]);
    expect(layers("self_attn.q_proj").map((name) => weights(name)[1])).toEqual([0.25, 0.25, 0.25]);
    expect(layers("input_layernorm").map((name) => weights(name)[1])).toEqual([0.6, 0.6, 0.6]);
    for (const name of ["model.embed_tokens.weight", "model.norm.weight"]) expect(weights(name)).toEqual([0.1, 0.6]);
  });

  test("slerp-unrelated: a gradient for one kind of tensor, one value for the others", async () => {
    const settings = await settingsOf("slerp-unrelated");
    const t = (name: string) => settings(name).global.t;
    expect(layers("self_attn.o_proj").map(t)).toEqual([0, 0.5, 1]);
    expect([...layers("mlp.down_proj"), "model.embed_tokens.weight"].map(t)).toEqual([0.4, 0.4, 0.4, 0.4]);
  });

  test("linear-slices: each slice has its own models in its own order", async () => {
    const settings = await settingsOf("linear-slices");
    const weights = (name: string) => settings(name).models.map(({ weight }) => weight);
    expect(layers("mlp.up_proj").map(weights)).toEqual([
      [1, 0.5],
      [1, 0.25],
      [1, 0.25],
    ]);
    expect(weights("model.embed_tokens.weight")).toEqual([1, 0.5]);
    expect(weights("model.norm.weight")).toEqual([1, 0.25]);
  });
});
