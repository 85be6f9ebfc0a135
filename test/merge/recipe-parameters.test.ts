// What is wrong with the parameters of a recipe. The models that it names do not exist: none is opened.
import { describe, expect, test } from "vitest";
import { mistakesOf } from "./recipe-fixture.js";

/** A recipe whose parameters are on line 4. */
const ties = (parameters: string) =>
  `merge_method: ties\nbase_model: b\nmodels: [{model: a}]\nparameters: ${parameters}\n`;

describe("a parameter that is fine", () => {
  test.each([
    "{weight: 1}",
    "{weight: [0, 1, 0.5]}",
    "{weight: 1 - layer / layers}",
    "{weight: [{filter: mlp, value: [0, 1]}, {filter: '*', value: layer}, {value: 2}]}",
    "{weight: 1, normalize: [true, false]}",
    "{weight: 1, density: [{value: 0.5}]}",
  ])("%s", async (parameters) => {
    expect(await mistakesOf(ties(parameters))).toEqual([]);
  });

  test("may be given with each model, each slice, or the whole", async () => {
    const slice = (model: string, more = "") => `  - sources: [{model: a, layer_range: [0, 1]${model}}]\n${more}`;
    const start = "merge_method: linear\nslices:\n";
    expect(await mistakesOf(`${start}${slice(", parameters: {weight: 1}")}`)).toEqual([]);
    expect(await mistakesOf(`${start}${slice("", "    parameters: {weight: 1}\n")}`)).toEqual([]);
    expect(await mistakesOf(`${start}${slice("")}parameters: {weight: 1}\n`)).toEqual([]);
  });
});

describe("a parameter that is wrong", () => {
  const known = "normalize, rescale, lambda, int8_mask, weight, density";
  test.each([
    ["{weight: 1, wieght: 1}", "parameters.wieght: unknown parameter of ties; did you mean weight?"],
    ["{weight: true}", "parameters.weight: expected a number, got true"],
    ["{weight: }", "parameters.weight: expected a number, got nothing"],
    ["{weight: .inf}", "parameters.weight: expected a number, got Infinity"],
    ["{weight: []}", "parameters.weight: expected a number, got an empty list"],
    ["{weight: [1, x]}", 'parameters.weight[1]: expected a number, got "x"'],
    ["{weight: 1, density: 1.5}", "parameters.density: expected a number from 0 to 1, got 1.5"],
    ["{weight: 1, density: [0, -1]}", "parameters.density[1]: expected a number from 0 to 1, got -1"],
    ["{weight: 1, normalize: 1}", "parameters.normalize: expected true or false, got 1"],
    ["{weight: 1, normalize: layer}", 'parameters.normalize: expected true or false, got "layer"'],
    ["{weight: {filter: mlp, value: }}", "parameters.weight.value: expected a number, got nothing"],
    ["{weight: {filter: mlp, value: {value: 1}}}", "parameters.weight.value: expected a number, got a mapping"],
    ["{weight: {filtre: mlp, value: 1}}", "parameters.weight.filtre: unknown key; did you mean filter?"],
    [
      "{weight: [{filter: mlp, value: 1}, 1]}",
      "parameters.weight[1]: expected a mapping of filter and value, as beside it, got 1",
    ],
    ["{weight: [{filter: mlp}]}", "parameters.weight[0].value: expected a number, got nothing"],
    ["{weight: [{filter: 3, value: 1}]}", "parameters.weight[0].filter: expected a part of a tensor's name, got 3"],
    ["{weight: [{name: mlp, value: 1}]}", "parameters.weight[0].name: unknown key; expected one of filter, value"],
    [
      "{weight: layer +}",
      'parameters.weight: expected a number or an expression of layer and layers, got: "layer +" is not an expression: Unexpected end of expression (char 8)',
    ],
    [
      "{weight: step / 2}",
      'parameters.weight: expected a number or an expression of layer and layers, got: "step / 2": step has no value in a merge',
    ],
    [
      "{weight: import('fs')}",
      `parameters.weight: expected a number or an expression of layer and layers, got: "import('fs')": import() is not known; expected one of min, max, abs, floor, ceil, round, exp, log, log10, sqrt, sin, cos, tanh, pow`,
    ],
    ["{weight: 1, zzz: 1}", `parameters.zzz: unknown parameter of ties; expected one of ${known}`],
  ])("%s", async (parameters, problem) => {
    expect(await mistakesOf(ties(parameters))).toEqual([`r.yml:4: ${problem}`]);
  });

  test("no mapping", async () => {
    const recipe = "merge_method: karcher\nparameters: [{tol: 1}]\nmodels:\n  - {model: a, parameters: 3}\n";
    expect(await mistakesOf(recipe)).toEqual([
      "r.yml:2: parameters: expected a mapping of parameters, got a list",
      "r.yml:4: models[0].parameters: expected a mapping of parameters, got 3",
    ]);
  });

  test("a choice, a whole number, a least value, one of a method that has none", async () => {
    const recipe = (method: string, parameters: string, base = "") =>
      `merge_method: ${method}\n${base}models: [{model: a}, {model: c}]\nparameters: ${parameters}\n`;
    expect(await mistakesOf(recipe("warp", "{granularity: block}", "base_model: b\n"))).toEqual([
      'r.yml:4: parameters.granularity: expected one of tensor, layer, model, got "block"',
    ]);
    expect(await mistakesOf(recipe("karcher", "{max_iter: 1.5, tol: -1}"))).toEqual([
      "r.yml:3: parameters.max_iter: expected a whole number, 0 or more, got 1.5",
      "r.yml:3: parameters.tol: expected a number, 0 or more, got -1",
    ]);
    const fusion = "merge_method: arcee_fusion\nbase_model: b\nmodels: [{model: a}]\nparameters: {t: 1}\n";
    expect(await mistakesOf(fusion)).toEqual([
      "r.yml:4: parameters.t: unknown parameter of arcee_fusion; it has none here",
    ]);
  });

  test("one of the whole merge, given with a model", async () => {
    const recipe =
      "merge_method: ties\nbase_model: b\nmodels:\n  - model: a\n    parameters:\n      weight: 1\n      lambda: 2\n";
    expect(await mistakesOf(recipe)).toEqual([
      "r.yml:7: models[0].parameters.lambda: is a parameter of the whole merge: give it under parameters at the top",
    ]);
  });

  test("one from --set", async () => {
    const recipe = ties("{weight: 1}");
    expect(await mistakesOf(recipe, { set: ["parameters.density=0.5"] })).toEqual([]);
    expect(await mistakesOf(recipe, { set: ["parameters.density=2", "dtype"] })).toEqual([
      "--set parameters.density=2: expected a number from 0 to 1, got 2",
      "--set dtype: expected KEY=VALUE, such as rl.steps=50",
    ]);
  });
});

describe("a parameter that is missing", () => {
  test("is named at the line of the model that lacks it, not of the base", async () => {
    const recipe = `merge_method: ties
base_model: b
models:
  - model: b
  - model: a
    parameters: {weight: 1}
  - model: c
  - model: d
    parameters:
      density: 0.5
`;
    expect(await mistakesOf(recipe)).toEqual([
      "r.yml:7: models[2].parameters.weight: expected a value for c, which ties needs, got nothing",
      "r.yml:9: models[3].parameters.weight: expected a value for d, which ties needs, got nothing",
    ]);
  });

  test("is named for a base, too, where the method has no use for one", async () => {
    expect(await mistakesOf("merge_method: linear\nbase_model: b\nmodels:\n  - model: b\n")).toEqual([
      "r.yml:4: models[0].parameters.weight: expected a value for b, which linear needs, got nothing",
    ]);
  });

  test("is named in its slice", async () => {
    const recipe = `merge_method: linear
slices:
  - sources:
    - {model: a, layer_range: [0, 1], parameters: {weight: 1}}
  - sources:
    - model: a
      layer_range: [1, 2]
`;
    expect(await mistakesOf(recipe)).toEqual([
      "r.yml:6: slices[1].sources[0].parameters.weight: expected a value for a, which linear needs, got nothing",
    ]);
  });

  test("of the whole merge says what it is", async () => {
    const needs = (key: string, what: string) => `${key}: expected a value (${what}), which slerp needs, got nothing`;
    const recipe = "merge_method: slerp\nbase_model: b\nmodels: [{model: a}]\n";
    const t = needs("parameters.t", "0 is the base, 1 the model");
    expect(await mistakesOf(recipe)).toEqual([`r.yml:1: ${t}`]);
    expect(await mistakesOf(`${recipe}parameters: {}\n`)).toEqual([`r.yml:4: ${t}`]);
  });
});
