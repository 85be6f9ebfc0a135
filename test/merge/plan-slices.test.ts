// Slices: layers of models stacked in any order, with the config that fits them.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { Models, sliceOf as source, stack, tensor } from "./plan-fixture.js";

const FIXTURES = fileURLToPath(new URL("../fixtures/mergekit/models", import.meta.url));
const A = `${FIXTURES}/a`;
const B = `${FIXTURES}/b`;

let models: Models;
beforeAll(async () => {
  models = await Models.create();
});
afterAll(() => models.remove());

describe("stacks of layers", () => {
  test("have the layers in the order of the slices, numbered through, some of them twice", async () => {
    const out = models.path("stacked");
    const recipe = await models.recipe(stack([A, 0, 3], [B, 1, 3], [B, 2, 3], [A, 0, 1]));
    await mergeRecipe({ recipe, out, workers: 0 });
    const [a, b, made] = [await models.read(A), await models.read(B), await models.read("stacked")];
    const layers = [
      [a, 0],
      [a, 1],
      [a, 2],
      [b, 1],
      [b, 2],
      [b, 2],
      [a, 0],
    ] as const;
    const perLayer = Object.keys(a).filter((name) => name.startsWith("model.layers.0."));
    expect(perLayer).toHaveLength(11);
    expect(Object.keys(made)).toHaveLength(11 * 7 + 2);
    for (const [i, [model, layer]] of layers.entries()) {
      for (const name of perLayer) {
        expect(made[name.replace("0", `${i}`)], name).toEqual(model[name.replace("0", `${layer}`)]);
      }
    }
    expect(made["model.embed_tokens.weight"]).toEqual(a["model.embed_tokens.weight"]);
    expect(made["model.norm.weight"]).toEqual(a["model.norm.weight"]);

    const types = "sfsfsss".split("").map((type) => (type === "f" ? "full_attention" : "sliding_attention"));
    const before = await readFile(`${A}/config.json`, "utf8");
    expect(await readFile(`${out}/config.json`, "utf8")).toBe(
      before
        .replace('"num_hidden_layers": 3', '"num_hidden_layers": 7')
        .replace(/"layer_types": \[[^\]]*\]/, `"layer_types": ${JSON.stringify(types)}`),
    );
  });

  test("take embeddings from the first slice, the norm and the head from the last", async () => {
    const parts = (x: number) => ({
      "model.embed_tokens.weight": [x],
      "model.layers.0.w": [x],
      "model.layers.1.w": [x + 0.5],
      "model.norm.weight": [x],
      "lm_head.weight": [x],
    });
    await models.write("x", parts(1), {
      model_type: "llama",
      num_hidden_layers: 2,
      tie_word_embeddings: false,
      from: "x",
    });
    await models.write("y", parts(2), {
      model_type: "llama",
      num_hidden_layers: 2,
      tie_word_embeddings: false,
      from: "y",
    });
    const { tensors, config } = await models.merge(stack(["$x", 0, 2], ["$y", 1, 2]));
    expect(tensors).toEqual({
      "model.embed_tokens.weight": [1],
      "model.layers.0.w": [1],
      "model.layers.1.w": [1.5],
      "model.layers.2.w": [2.5],
      "model.norm.weight": [2],
      "lm_head.weight": [2],
    });
    expect(config).toBe(
      '{"torch_dtype": "float32","model_type":"llama","num_hidden_layers":3,"tie_word_embeddings":false,"from":"x"}',
    );
    const based = await models.merge(`${stack(["$x", 0, 2])}base_model: $y\n`);
    expect([JSON.parse(based.config).from, based.tensors["model.norm.weight"]]).toEqual(["y", [1]]);
  });

  test("scale by the layer within the slice", async () => {
    const scale = "parameters: {scale: layer + 2 * layers}\n";
    const { tensors } = await models.merge(stack(["$x", 0, 1], ["$x", 0, 2]) + scale);
    expect(tensors).toEqual({
      "model.embed_tokens.weight": [2],
      "model.layers.0.w": [2],
      "model.layers.1.w": [4],
      "model.layers.2.w": [1.5 * 5],
      "model.norm.weight": [4],
      "lm_head.weight": [4],
    });
  });
});

describe("filters of slices", () => {
  test("see what models have by its name in the model, and what the whole has by its name in the result", async () => {
    await models.write("z", { "layers.0.w": [1, 1], "layers.1.w": [1, 1] }, { num_hidden_layers: 2 });
    const settings = async (recipe: string) =>
      (await models.plan(recipe)).plan.tensors.map(({ name, source }) => {
        return source.kind === "merge" ? [name, source.settings.global, source.settings.models] : null;
      });
    const scale = "parameters: {scale: [{filter: layers.1, value: 7}, {value: 1}]}\n";
    expect(await settings(stack(["$z", 1, 2], ["$z", 0, 1]) + scale)).toEqual([
      ["layers.0.w", {}, [{ scale: 7 }]],
      ["layers.1.w", {}, [{ scale: 1 }]],
    ]);
    const sources = `[${source("$z", 1, 2)}, ${source("$z", 1, 2)}]`;
    const linear = `merge_method: linear\nslices: [{sources: ${sources}}]\nparameters: {weight: [{filter: layers.1, value: 2}, {value: 1}], normalize: [{filter: layers.1, value: false}]}\n`;
    expect(await settings(linear)).toEqual([["layers.0.w", { normalize: true }, [{ weight: 2 }, { weight: 2 }]]]);
  });
});

describe("slices of several sources", () => {
  const slerp = (...sources: string[]) =>
    `merge_method: task_arithmetic\nbase_model: $x\nparameters: {weight: 1}\nslices:\n  - sources: [${sources.join(", ")}]\n`;

  test("merge layers that have other numbers; the base has its own range, or that of the first source", async () => {
    const own = await models.merge(slerp(source("$x", 0, 1), source("$y", 1, 2)));
    expect(own.tensors["model.layers.0.w"]).toEqual([2.5]);
    const plan = async (recipe: string) =>
      (await models.plan(recipe)).plan.tensors.find(({ name }) => name === "model.layers.0.w")!;
    const { plan: all } = await models.plan(stack(["$x", 0, 2]));
    const place = (layer: number) => {
      const found = all.tensors.find(({ name }) => name === `model.layers.${layer}.w`)!.source;
      return found.kind === "merge" ? found.models[0] : null;
    };
    expect((await plan(slerp(source("$x", 0, 1), source("$y", 1, 2)))).source).toMatchObject({ base: place(0) });
    expect((await plan(slerp(source("$y", 1, 2)))).source).toMatchObject({ base: place(1) });
  });

  test("must have the same tensors, of the same shapes", async () => {
    const layer = (w: number[], more = {}) => ({ "layers.0.w": w, "layers.1.w": [1], ...more });
    await models.write("p", layer([1, 2]));
    await models.write("q", layer([1, 2], { "layers.1.bias": [1] }));
    const both = (first: string, second: string) =>
      `merge_method: karcher\nslices:\n  - sources: [${first}, ${second}]\n`;
    expect(await models.problem(both(source("$p", 0, 1), source("$p", 1, 2)))).toBe(
      'SafetensorsError: p: tensor "layers.1.w" has shape [1], expected [2] as "layers.0.w" in p',
    );
    expect(await models.problem(both(source("$q", 1, 2), source("$p", 1, 2)))).toBe(
      'SafetensorsError: p: has no tensor "layers.1.bias", which is merged into "layers.0.bias"',
    );
    expect(await models.problem(both(source("$p", 1, 2), source("$q", 1, 2)))).toBe(
      'SafetensorsError: q: has a tensor "layers.1.bias" of shape [1], and p has no "layers.1.bias" to merge it with',
    );
    await models.write("i", { "layers.0.w": tensor([2], [1, 2], "I8"), "layers.1.w": [1] });
    expect(await models.problem(both(source("$i", 0, 1), source("$p", 0, 1)))).toBe(
      'SafetensorsError: p: tensor "layers.0.w" is F32, and "layers.0.w" in i is I8',
    );
  });

  test("stay within the model", async () => {
    expect(await models.problem(stack(["$x", 1, 3]))).toBe(
      "ModelError: x: has 2 layers, expected 3 or more for layer_range [1, 3]",
    );
  });
});
