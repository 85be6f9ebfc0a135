// What a recipe's models must have in common, and what each tensor of the result is made of.
import { mkdir, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Models, tensor } from "./plan-fixture.js";

const linear = (...models: string[]) =>
  `merge_method: linear\nparameters: {weight: 1}\nmodels: [${models.map((model) => `{model: ${model}}`).join(", ")}]\n`;

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  await models.write("a", { "layers.0.w": [1, 2], norm: [1] });
  await models.write("b", { "layers.0.w": [3, 6], norm: [2] });
});
afterAll(() => models.remove());

describe("models that do not fit", () => {
  test("a missing and an additional tensor", async () => {
    await models.write("less", { "layers.0.w": [1, 2] });
    expect(await models.problem(linear("$a", "$less"))).toBe(
      'SafetensorsError: less: has no tensor "norm", which a has in shape [1]',
    );
    expect(await models.problem(linear("$less", "$a"))).toBe(
      'SafetensorsError: a: has a tensor "norm" of shape [1], which less has not',
    );
  });

  test("another shape, with a hint where it is only the number of tokens", async () => {
    await models.write("wide", { "layers.0.w": [1, 2, 3], norm: [1] });
    expect(await models.problem(linear("$a", "$wide"))).toBe(
      'SafetensorsError: wide: tensor "layers.0.w" has shape [3], expected [2] as in a',
    );
    const embedding = (rows: number, columns: number) => ({
      "model.embed_tokens.weight": tensor([rows, columns], Array(rows * columns).fill(0)),
    });
    await models.write("v3", embedding(3, 2));
    await models.write("v4", embedding(4, 2));
    await models.write("h4", embedding(3, 4));
    expect(await models.problem(linear("$v3", "$v4"))).toBe(
      'SafetensorsError: v4: tensor "model.embed_tokens.weight" has shape [4,2], expected [3,2] as in v3; with tokenizer_source: union, vocabularies may differ',
    );
    expect(await models.problem(linear("$v3", "$h4"))).toBe(
      'SafetensorsError: h4: tensor "model.embed_tokens.weight" has shape [3,4], expected [3,2] as in v3',
    );
  });

  test("integers where another has floats", async () => {
    await models.write("i8", { "layers.0.w": tensor([2], [1, 2], "I8"), norm: [1] });
    expect(await models.problem(linear("$a", "$i8"))).toBe(
      'SafetensorsError: i8: tensor "layers.0.w" is I8, and F32 in a',
    );
  });

  test("another family, no config, no folder", async () => {
    await models.write("gemma", { "layers.0.w": [1, 2], norm: [1] }, { model_type: "gemma2" });
    await models.write("none", { "layers.0.w": [1, 2], norm: [1] }, {});
    expect(await models.problem(linear("$a", "$gemma"))).toBe(
      'ModelError: gemma: config.json has model_type "gemma2", and "llama" in a',
    );
    expect(await models.problem(linear("$none", "$a"))).toBe(
      'ModelError: a: config.json has model_type "llama", and undefined in none',
    );
    await mkdir(models.path("empty"));
    expect(await models.problem(linear("$a", "$empty"))).toBe(
      "ModelError: empty: has no config.json, expected a model folder",
    );
  });

  test("all folders that are not there, at once, before others are opened", async () => {
    await writeFile(models.path("file"), "");
    const inner = "{merge_method: karcher, base_model: $x, models: [{model: $a}, {model: $y}]}";
    const text = `${linear("$a+$lora", "$file", inner, "$x")}base_model: $z\n`;
    const missing = "no such folder";
    expect(await models.problem(text)).toBe(
      [
        `RecipeError: z: ${missing}`,
        `lora: ${missing}`,
        "file: is a file, expected a folder",
        `x: ${missing}`,
        `y: ${missing}`,
      ].join("\n"),
    );
  });

  test("parameters that are wrong at some tensor", async () => {
    const ties = (parameters: string) =>
      `merge_method: della\nbase_model: $a\nmodels: [{model: $b}]\nparameters: ${parameters}\n`;
    expect(await models.problem(ties("{weight: 1, density: layer + 1 + layers}"))).toBe(
      "RecipeError: density is 2 for tensor layers.0.w, expected a number from 0 to 1",
    );
    expect(await models.problem(ties("{weight: [{filter: norm, value: 1}]}"))).toBe(
      "RecipeError: weight has no value for tensor layers.0.w: none of its filters matches, and no default",
    );
    expect(await models.problem(ties("{weight: 1, density: 0.9, epsilon: 0.2}"))).toMatch(
      /^RecipeError: tensor layers.0.w: della: density 0.9 with epsilon 0.2 gives probabilities from /,
    );
  });
});

describe("what a tensor is made of", () => {
  test("files are named once, whatever names them; the base is no member, in either place", async () => {
    const recipe = "merge_method: task_arithmetic\nbase_model: $a\nparameters: {weight: 1}\n";
    for (const list of ["[{model: $b}]", "[{model: $a}, {model: $b}]", "[{model: $b}, {model: $a}]"]) {
      const { plan, models: read, sideFilesFrom } = await models.plan(`${recipe}models: ${list}\n`);
      expect([plan.files.length, read, sideFilesFrom]).toEqual([
        2,
        ["a", "b"].map((x) => models.path(x)),
        models.path("a"),
      ]);
      const [first] = plan.tensors;
      expect(first!.source).toMatchObject({
        kind: "merge",
        base: { place: { file: 0 } },
        models: [{ place: { file: 1 } }],
      });
      expect((await models.merge(`${recipe}models: ${list}\n`)).tensors["layers.0.w"]).toEqual([3, 6]);
    }
  });

  test("a model that is listed twice counts twice", async () => {
    expect((await models.merge(linear("$a", "$b", "$b"))).tensors).toEqual({
      "layers.0.w": [expect.closeTo(7 / 3, 6), expect.closeTo(14 / 3, 6)],
      norm: [expect.closeTo(5 / 3, 6)],
    });
  });

  test("the base of a method that has no use for one gives the config alone", async () => {
    await models.write("c", { "layers.0.w": [9, 9], norm: [9] }, { model_type: "llama", name: "c" });
    const { tensors, config } = await models.merge(`${linear("$a", "$b")}base_model: $c\n`);
    expect(tensors).toEqual({ "layers.0.w": [2, 4], norm: [1.5] });
    expect(JSON.parse(config).name).toBe("c");
    expect((await models.plan(`${linear("$a", "$b")}base_model: $c\n`)).sideFilesFrom).toBe(models.path("c"));
  });

  test("dtype is what is stored; without it each tensor keeps its own", async () => {
    const mixed = (x: number) => ({ "layers.0.w": tensor([1], [x], "BF16"), norm: tensor([1], [x], "F16"), z: [x] });
    await models.write("m1", mixed(1));
    await models.write("m2", mixed(2));
    const dtypes = async (more: string) =>
      (await models.plan(linear("$m1", "$m2") + more)).plan.tensors.map(({ name, dtype }) => `${name} ${dtype}`).sort();
    expect(await dtypes("")).toEqual(["layers.0.w BF16", "norm F16", "z F32"]);
    expect(await dtypes("dtype: float16\n")).toEqual(["layers.0.w F16", "norm F16", "z F16"]);
    expect(await dtypes("dtype: float32\nout_dtype: bfloat16\n")).toEqual(["layers.0.w BF16", "norm BF16", "z BF16"]);
    const { config } = await models.plan(`${linear("$m1", "$m2")}dtype: float16\n`);
    expect(JSON.parse(config).torch_dtype).toBe("float16");
  });

  test("integers are copied, and must be the same", async () => {
    const masked = (w: number, mask: number) => ({ w: [w], mask: tensor([2], [mask, 1], "I8") });
    await models.write("k1", masked(1, 0));
    await models.write("k2", masked(3, 0));
    await models.write("k3", masked(3, 1));
    expect((await models.merge(`${linear("$k1", "$k2")}dtype: bfloat16\n`)).tensors).toEqual({ w: [2], mask: [0, 1] });
    await expect(models.merge(linear("$k1", "$k3"))).rejects.toThrow('tensor "mask" of dtype I8 differs from');
    // The inner recipe's models are compared, too.
    const nested = `merge_method: linear\nmodels:\n  - model: $k1\n    parameters: {weight: 1}\n  - model: {merge_method: karcher, models: [{model: $k2}, {model: $k3}]}\n    parameters: {weight: 1}\n`;
    await expect(models.merge(nested)).rejects.toThrow('tensor "mask" of dtype I8 differs from');
  });

  test("random methods draw anew for each tensor, and by the seed", async () => {
    const seeds = async (seed: number) =>
      (await models.plan(linear("$a", "$b"), seed)).plan.tensors.map(({ source }) =>
        source.kind === "merge" ? source.settings.seed : null,
      );
    const [first, again, other] = [await seeds(0), await seeds(0), await seeds(1)];
    expect(again).toEqual(first);
    expect(new Set([...first, ...other]).size).toBe(4);
  });
});
