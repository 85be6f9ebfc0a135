// Output heads: tied to the embedding, a tensor of their own, or both among the models of a recipe.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Models, tensor } from "./plan-fixture.js";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";
const matrix = (...values: number[]) => tensor([values.length / 2, 2], values);

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  const gemma = { model_type: "gemma2" };
  const tied = { model_type: "gemma2", tie_word_embeddings: true };
  const untied = { model_type: "gemma2", tie_word_embeddings: false };
  await models.write("silent", { [EMBEDDING]: matrix(1, 2) }, gemma);
  await models.write("tied", { [EMBEDDING]: matrix(3, 4) }, tied);
  await models.write("copy", { [EMBEDDING]: matrix(5, 6), [HEAD]: matrix(5, 6) }, tied);
  await models.write("untied", { [EMBEDDING]: matrix(1, 1), [HEAD]: matrix(7, 9) }, untied);
  await models.write("untied2", { [EMBEDDING]: matrix(1, 1), [HEAD]: matrix(3, 5) }, untied);
});
afterAll(() => models.remove());

const linear = (...names: string[]) =>
  `merge_method: linear\nparameters: {weight: 1}\nmodels: [${names.map((name) => `{model: $${name}}`).join(", ")}]\n`;

describe("the head of the result", () => {
  test("is the embedding where it is that of all models; Gemma's is where its config is silent", async () => {
    const { tensors, config } = await models.merge(linear("silent", "tied", "copy"));
    expect(tensors).toEqual({ [EMBEDDING]: [3, 4] });
    expect(config).toBe('{"torch_dtype": "float32","model_type":"gemma2"}');
    expect((await models.merge(linear("copy", "copy"))).tensors).toEqual({ [EMBEDDING]: [5, 6] });
  });

  test.each([
    [
      ["tied", "untied"],
      [5, 6.5],
    ],
    [
      ["silent", "untied"],
      [4, 5.5],
    ],
    [
      ["untied", "tied"],
      [5, 6.5],
    ],
    [
      ["untied", "copy"],
      [6, 7.5],
    ],
    [
      ["untied", "untied2"],
      [5, 7],
    ],
  ] as const)("is a tensor where one model has it as such, the others' is their embedding: %s", async (names, head) => {
    const merged = await models.merge(linear(...names));
    expect(merged.tensors[HEAD]).toEqual(head);
    expect(Object.keys(merged.tensors)).toHaveLength(2);
    expect(JSON.parse(merged.config)).toEqual({
      model_type: "gemma2",
      torch_dtype: "float32",
      tie_word_embeddings: false,
    });
  });

  test("is a tensor if the base has it as such", async () => {
    const recipe =
      "merge_method: task_arithmetic\nbase_model: $untied\nparameters: {weight: 1}\nmodels: [{model: $tied}]\n";
    const { tensors, config } = await models.merge(recipe);
    expect(tensors).toEqual({ [EMBEDDING]: [3, 4], [HEAD]: [3, 4] });
    expect(JSON.parse(config).tie_word_embeddings).toBe(false);
  });

  test("is said to be one where the config leaves it to the family", async () => {
    await models.write("own", { [EMBEDDING]: matrix(1, 1), [HEAD]: matrix(2, 2) }, { model_type: "cohere" });
    await models.write("none", { [EMBEDDING]: matrix(4, 4) }, { model_type: "cohere" });
    const said = await models.merge(linear("none", "own"));
    expect(JSON.parse(said.config).tie_word_embeddings).toBe(false);
    expect(said.tensors[HEAD]).toEqual([3, 3]);
    const silent = await models.merge(linear("own", "own"));
    expect(JSON.parse(silent.config)).toEqual({ model_type: "cohere", torch_dtype: "float32" });
  });

  test("is missed where a config says that there is one", async () => {
    await models.write("broken", { [EMBEDDING]: matrix(1, 1) }, { model_type: "gemma2", tie_word_embeddings: false });
    expect(await models.problem(linear("untied", "broken"))).toBe(
      `SafetensorsError: broken: has no tensor "${HEAD}", which untied has in shape [1,2]`,
    );
  });

  test("of a recipe within another is that of its models", async () => {
    const inner = "{merge_method: karcher, models: [{model: $tied}]}";
    const { tensors, config } = await models.merge(
      `merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: ${inner}}, {model: $untied}]\n`,
    );
    expect(tensors[HEAD]).toEqual([5, 6.5]);
    expect(JSON.parse(config).tie_word_embeddings).toBe(false);
  });
});
