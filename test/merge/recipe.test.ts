// What is wrong with keys, types and counts of a recipe. The models that it names do not exist: none is opened.
import { describe, expect, test } from "vitest";
import { mistakesOf } from "./recipe-fixture.js";

const METHODS =
  "linear, slerp, nuslerp, multislerp, karcher, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear, breadcrumbs, breadcrumbs_ties, model_stock, sce, nearswap, arcee_fusion, passthrough, warp, ema";

test("all mistakes come at once, in the order of the file", async () => {
  const recipe = `merge_method: ties
model: [a]
base_model: 7
models:
  - model: a
    parameters: {weight: heavy, densty: 0.5}
  - 12
dtype: int8
out_dtype: [float32]
chat_template: 3
tokenizer_source: base
tokenizer: {source: base}
`;
  expect(await mistakesOf(recipe)).toEqual([
    "r.yml:2: model: unknown key; did you mean models?",
    "r.yml:3: base_model: expected a model folder, a recipe file or a recipe, got 7",
    'r.yml:6: models[0].parameters.weight: expected a number or an expression of layer and layers, got: "heavy": heavy is not known; expected one of step, steps, iteration, layer, layers, pi, e',
    "r.yml:6: models[0].parameters.densty: unknown parameter of ties; did you mean density?",
    "r.yml:7: models[1]: expected a mapping with model, got 12",
    'r.yml:8: dtype: expected one of float32, bfloat16, float16, got "int8"',
    "r.yml:9: out_dtype: expected one of float32, bfloat16, float16, got a list",
    "r.yml:10: chat_template: expected a name of a template, auto, or the template, got 3",
    "r.yml:12: tokenizer: expected either tokenizer or tokenizer_source, got both",
  ]);
});

describe("the whole", () => {
  test.each([
    ["[a, b]", "r.yml:1: expected a recipe, a mapping with merge_method, got a list"],
    ["merge_method: linear: ties", "r.yml:1: expected YAML, got: Nested mappings are not allowed in compact mappings"],
    ["", `r.yml:1: merge_method: expected one of ${METHODS}, got nothing`],
  ])("%s", async (recipe, message) => {
    expect(await mistakesOf(recipe)).toContain(message);
  });

  test("a key that is given twice", async () => {
    expect(await mistakesOf("merge_method: linear\nmerge_method: karcher\nmodels: [{model: a}]\n")).toEqual([
      "r.yml:2: merge_method: expected one value, got a second; the first is on line 1",
    ]);
  });

  test("an unknown key, with what may have been meant, or what there is", async () => {
    expect(await mistakesOf("merge_method: karcher\nmodels: [{model: a}]\nparameter: {}\nname: x\n")).toEqual([
      "r.yml:3: parameter: unknown key; did you mean parameters?",
      "r.yml:4: name: unknown key; expected one of merge_method, models, slices, modules, base_model, parameters, dtype, out_dtype, tokenizer, tokenizer_source, chat_template",
    ]);
  });
});

describe("merge_method", () => {
  test.each([
    ["dare-ties", "unknown method; did you mean dare_ties?"],
    ["SLERP", "unknown method; did you mean slerp?"],
    ["evolve", `expected one of ${METHODS}, got "evolve"`],
    ["constructor", `expected one of ${METHODS}, got "constructor"`],
    ["3", `expected one of ${METHODS}, got 3`],
  ])("%s", async (name, problem) => {
    expect(await mistakesOf(`merge_method: ${name}\nmodels: [{model: a}]\ndtype: f32\n`)).toEqual([
      `r.yml:1: merge_method: ${problem}`,
      'r.yml:3: dtype: expected one of float32, bfloat16, float16, got "f32"',
    ]);
  });
});

describe("models and slices", () => {
  test.each([
    ["merge_method: karcher", ["r.yml:1: expected either models or slices, got neither"]],
    [
      "merge_method: karcher\nmodels: [{model: a}]\nslices: []",
      ["r.yml:3: slices: expected either models or slices, got both"],
    ],
    ["merge_method: karcher\nmodels: a", ['r.yml:2: models: expected a list of models, got "a"']],
    ["merge_method: karcher\nmodels: []", ["r.yml:2: models: expected a list of models, got an empty list"]],
    ["merge_method: karcher\nslices: {}", ["r.yml:2: slices: expected a list of slices, got a mapping"]],
    ["merge_method: karcher\nslices: [a]", ['r.yml:2: slices[0]: expected a mapping with sources, got "a"']],
    [
      "merge_method: karcher\nslices:\n  - parameters: {}",
      ["r.yml:3: slices[0].sources: expected a list of models, got nothing"],
    ],
    [
      "merge_method: karcher\nmodels:\n  - model:\n  - parameters: {}\n  - model: a+b+c\n  - model: +b",
      [
        "r.yml:3: models[0].model: expected a model folder, a recipe file or a recipe, got nothing",
        "r.yml:4: models[1].model: expected a model folder, a recipe file or a recipe, got nothing",
        'r.yml:5: models[2].model: expected MODEL or MODEL+ADAPTER, got "a+b+c"',
        'r.yml:6: models[3].model: expected MODEL or MODEL+ADAPTER, got "+b"',
      ],
    ],
    [
      "merge_method: karcher\nmodels:\n  - {model: a, layer_range: [0, 1]}",
      ["r.yml:3: models[0].layer_range: unknown key; expected one of model, parameters"],
    ],
    [
      "merge_method: karcher\nslices:\n  - base_model: a\n    sources: [{model: a, layer_range: [0, 1]}]",
      ["r.yml:3: slices[0].base_model: is the same for all slices: give it at the top"],
    ],
  ])("%s", async (recipe, mistakes) => {
    expect(await mistakesOf(recipe)).toEqual(mistakes);
  });

  test("layer ranges are two whole numbers that grow, of one length in a slice", async () => {
    const slices = (...ranges: string[]) =>
      `merge_method: karcher\nslices:\n  - sources:\n${ranges.map((range) => `    - {model: a, layer_range: ${range}}\n`).join("")}`;
    const at = (i: number) => `r.yml:${i + 4}: slices[0].sources[${i}].layer_range: `;
    const expected = "expected [first layer, layer after the last], got";
    const wrong = ["[2, 2]", "[-1, 2]", "[0, 1.5]", "[0]", "all"];
    expect(await mistakesOf(slices(...wrong))).toEqual(
      wrong.map((range, i) => `${at(i)}${expected} ${range === "all" ? '"all"' : range}`),
    );
    expect(await mistakesOf(slices("[0, 2]", "", "[1, 4]"))).toEqual([
      "r.yml:3: slices[0].sources: expected layer ranges of one length, got 2, 3 layers",
      `${at(1)}${expected} nothing`,
    ]);
  });

  const three = "models: [{model: a}, {model: b}, {model: c}]";
  test.each([
    [`merge_method: slerp\nbase_model: a\nparameters: {t: 0}\n${three}`, "slerp merges 1 model beside the base, got 2"],
    [
      "merge_method: slerp\nbase_model: a\nparameters: {t: 0}\nmodels: [{model: a}]",
      "slerp merges 1 model beside the base, got 0",
    ],
    [`merge_method: nuslerp\nparameters: {weight: 1}\n#\n${three}`, "nuslerp merges 2 models, got 3"],
    [
      "merge_method: model_stock\nbase_model: a\n#\nmodels: [{model: a}, {model: b}]",
      "model_stock merges 2 or more models beside the base, got 1",
    ],
    [`merge_method: passthrough\n#\n#\n${three}`, "passthrough merges 1 model, got 3"],
  ])("as many as the method merges: %s", async (recipe, problem) => {
    expect(await mistakesOf(recipe)).toEqual([`r.yml:4: models: ${problem}`]);
  });

  test("a base where the method starts from one; the models cannot be counted without it", async () => {
    expect(await mistakesOf(`merge_method: slerp\nparameters: {t: 0}\n${three}`)).toEqual([
      "r.yml:1: base_model: expected a model, which slerp starts from, got nothing",
    ]);
  });
});
