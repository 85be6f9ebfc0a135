// Recipes as models of other recipes: in their place, or in files of their own.
import { expect, test } from "vitest";
import { checkRecipe } from "../../merge/recipe-check.js";
import { isSameModel } from "../../merge/recipe-models.js";
import { mistakesOf } from "./recipe-fixture.js";

test("mistakes of a recipe in a model's place have the lines and keys of the whole file", async () => {
  const recipe = `merge_method: linear
base_model:
  merge_method: slerp
  base_model: a
  models: [{model: b}]
models:
  - model:
      merge_method: linear
      models:
        - model: a
          parameters: {weight: [x]}
        - model: b
      dtyp: float32
    parameters: {weight: 1}
  - model:
      merge_method: lineer
    parameters: {weight: 1}
`;
  expect(await mistakesOf(recipe)).toEqual([
    "r.yml:2: base_model.parameters.t: expected a value (0 is the base, 1 the model), which slerp needs, got nothing",
    'r.yml:11: models[0].model.models[0].parameters.weight[0]: expected a number, got "x"',
    "r.yml:12: models[0].model.models[1].parameters.weight: expected a value for b, which linear needs, got nothing",
    "r.yml:13: models[0].model.dtyp: unknown key; did you mean dtype?",
    "r.yml:15: models[1].model: expected either models or slices, got neither",
    "r.yml:16: models[1].model.merge_method: unknown method; did you mean linear?",
  ]);
});

test("mistakes of a recipe in another file follow the line that names it", async () => {
  const recipe =
    "merge_method: karcher\nmodels:\n  - model: HERE/inner.yaml\n  - model: HERE/none.yml\n  - modell: a\n";
  const others = { "inner.yaml": "merge_method: karcher\nmodels:\n  - model: 3\n" };
  expect(await mistakesOf(recipe, { others })).toEqual([
    "r.yml:3: models[0].model: is a recipe that cannot be read:",
    "inner.yaml:3: models[0].model: expected a model folder, a recipe file or a recipe, got 3",
    "r.yml:4: models[1].model: is a recipe that cannot be read:",
    "none.yml: expected a recipe, got: no such file",
    "r.yml:5: models[2].modell: unknown key; did you mean model?",
    "r.yml:5: models[2].model: expected a model folder, a recipe file or a recipe, got nothing",
  ]);
});

test("a recipe that is a source of itself is an error, by whatever path", async () => {
  const karcher = (model: string) => `merge_method: karcher\nmodels:\n  - model: ${model}\n`;
  const others = { "s.yml": karcher("HERE/./r.yml") };
  expect(await mistakesOf(karcher("HERE/s.yml"), { others })).toEqual([
    "r.yml:3: models[0].model: is a recipe that cannot be read:",
    "s.yml:3: models[0].model: is a recipe that cannot be read:",
    "./r.yml: is a source of itself: r.yml -> s.yml -> ./r.yml",
  ]);
});

test("a file that is named twice is one model; recipes in a model's place are several", async () => {
  const inner = { merge_method: "karcher", models: [{ model: "a" }] };
  const models = ["x.yml", "x.yml", "y.yml", inner, inner, "a", "a", "a+b"].map((model) => ({ model }));
  const { recipe } = await checkRecipe({ merge_method: "karcher", models }, async () => {
    const { recipe } = await checkRecipe(inner, () => Promise.reject(new Error("reads no file")));
    return recipe!;
  });
  const references = recipe!.slices[0]!.sources.map(({ model }) => model);
  const firstLike = references.map((reference) => references.findIndex((other) => isSameModel(reference, other)));
  expect(firstLike).toEqual([0, 0, 2, 3, 4, 5, 5, 7]);
});

test("the tokenizer and the chat template are those of the outermost recipe", async () => {
  const inner = "{merge_method: karcher, models: [{model: a}], tokenizer_source: union}";
  const others = { "inner.yml": "merge_method: karcher\nmodels: [{model: a}]\nchat_template: chatml\n" };
  const recipe = `merge_method: karcher\nmodels:\n  - model: ${inner}\n  - model: HERE/inner.yml\ntokenizer_source: base\n`;
  const problem = "has a tokenizer or chat_template of its own: give it in the outermost recipe";
  expect(await mistakesOf(recipe, { others })).toEqual([
    `r.yml:3: models[0].model: ${problem}`,
    `r.yml:4: models[1].model: ${problem}`,
  ]);
});
