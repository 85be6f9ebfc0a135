// What recipes call models: folders, adapters, and mergekit's long form of both. None of them exists.
import { describe, expect, test } from "vitest";
import { checkRecipe } from "../../merge/recipe-check.js";
import { mistakesOf } from "./recipe-fixture.js";

async function read(model: unknown) {
  const written = { merge_method: "karcher", models: [{ model }] };
  const { recipe, mistakes } = await checkRecipe(written, () => Promise.reject(new Error("reads no file")));
  return { mistakes, model: recipe!.slices.flatMap(({ sources }) => sources.map((source) => source.model))[0] };
}

describe("a model", () => {
  test.each([
    ["a/b", { path: "a/b", adapter: null, text: "a/b" }],
    ["a+b", { path: "a", adapter: "b", text: "a+b" }],
    [{ model: "a" }, { path: "a", adapter: null, text: "a" }],
    [
      { model: { path: "a" }, lora: null },
      { path: "a", adapter: null, text: "a" },
    ],
    [
      { model: { path: "a", revision: null }, lora: { path: "b" } },
      { path: "a", adapter: "b", text: "a+b" },
    ],
    ["org/m@v1", { path: "org/m@v1", adapter: null, text: "org/m@v1" }],
    ["org/m@refs/pr/1+b@2", { path: "org/m@refs/pr/1", adapter: "b@2", text: "org/m@refs/pr/1+b@2" }],
    [
      { model: { path: "org/m", revision: "v1" }, lora: { path: "org/b", revision: 2 } },
      { path: "org/m@v1", adapter: "org/b@2", text: "org/m@v1+org/b@2" },
    ],
  ])("%j", async (written, model) => {
    expect(await read(written)).toEqual({ mistakes: [], model: { kind: "folder", ...model } });
  });

  test.each([
    ["{model: 3}", ".model: expected a folder, got 3"],
    ["{model: {path: }}", ".model: expected a folder, got nothing"],
    ["{model: a, lora: [b]}", ".lora: expected a folder, got a list"],
    ["{model: a, adapter: b}", ".adapter: unknown key; expected one of model, lora"],
    ["{model: a, override_architecture: X}", ".override_architecture: unknown key; expected one of model, lora"],
    ["{model: {path: a, rev: 1}}", ".model.rev: unknown key; expected one of path, revision"],
    ["{path: a}", ": expected a model folder, a recipe file or a recipe, got a mapping"],
  ])("%s", async (model, problem) => {
    expect(await mistakesOf(`merge_method: karcher\nmodels:\n  - model: ${model}\n`)).toEqual([
      `r.yml:3: models[0].model${problem}`,
    ]);
  });
});
