// modules: one that is called default is as if it were not there; the parts of a model are not merged.
import { describe, expect, test } from "vitest";
import { checkRecipe } from "../../merge/recipe-check.js";
import { mistakesOf } from "./recipe-fixture.js";

const read = (written: Readonly<Record<string, unknown>>) =>
  checkRecipe({ merge_method: "linear", ...written }, () => Promise.reject(new Error("reads no file")));

describe("a single module", () => {
  const sources = [{ model: "a", layer_range: [0, 1] }];

  test("is as its slices or models at the top", async () => {
    const parameters = { weight: 1 };
    for (const whole of [{ slices: [{ sources }, { sources }] }, { models: [{ model: "a" }] }]) {
      const within = await read({ modules: { default: whole }, parameters });
      expect(within.mistakes).toEqual([]);
      expect(within).toEqual(await read({ ...whole, parameters }));
    }
  });

  test("has parameters that come after those of its slices", async () => {
    const on = (filter: string, value: number) => ({ filter, value });
    const slice = { sources, parameters: { weight: [on("mlp", 1)] } };
    const parameters = { weight: [on("attn", 2), on("mlp", 3)], normalize: false };
    const { recipe, mistakes } = await read({ modules: { default: { slices: [slice], parameters } } });
    expect(mistakes).toEqual([]);
    expect(recipe!.parameters).toEqual({});
    expect(recipe!.slices[0]!.parameters).toEqual({
      weight: [on("mlp", 1), on("attn", 2), on("mlp", 3)],
      normalize: [{ filter: null, value: false }],
    });
  });
});

describe("mistakes", () => {
  const one = "expected one module, default, as models of several parts cannot be merged, got";
  test.each([
    ["modules: {text_decoder: {}, vision_tower: {}}", `modules: ${one} text_decoder, vision_tower`],
    ["modules: {default: {}, vision_tower: {}}", `modules: ${one} default, vision_tower`],
    ["modules: {}", `modules: ${one} none`],
    ["modules: [default]", `modules: ${one} a list`],
    ["modules: {default: }", "modules.default: expected a mapping with slices or models, got nothing"],
    ["modules: {default: {}}", "modules.default: expected either models or slices, got neither"],
    [
      "modules: {default: {models: [{model: a}], slice: []}}",
      "modules.default.slice: unknown key; did you mean slices?",
    ],
    [
      "modules: {default: {models: [{model: a, layer_range: [0, 1]}]}}",
      "modules.default.models[0].layer_range: unknown key; expected one of model, parameters",
    ],
    ["modules: {default: {slices: 3}}", "modules.default.slices: expected a list of slices, got 3"],
    [
      "modules: {default: {models: [{model: a}], parameters: {tolerance: 1}}}",
      "modules.default.parameters.tolerance: unknown parameter of karcher; expected one of max_iter, tol",
    ],
    ["modules: {default: {}}\nslices: []", "modules: expected one of models, slices and modules, got slices, too"],
  ])("%s", async (modules, problem) => {
    expect(await mistakesOf(`merge_method: karcher\n${modules}\n`)).toEqual([`r.yml:2: ${problem}`]);
  });
});
