// What models must be like where a recipe has a tokenizer, and what else goes into their folder.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHAT_TEMPLATES } from "../../merge/chat-template.js";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { Models, type Tensors, tensor } from "./plan-fixture.js";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  await write("a", ["x", "y"], { [EMBEDDING]: tensor([2, 2], [1, 2, 3, 4]), "model.norm.weight": [1, 1] });
  await write("b", ["y", "z"], { [EMBEDDING]: tensor([2, 2], [5, 6, 7, 8]), "model.norm.weight": [3, 3] });
});
afterAll(() => models.remove());

async function write(name: string, tokens: readonly string[], tensors: Tensors, config: object = {}): Promise<void> {
  await models.write(name, tensors, { model_type: "llama", vocab_size: tokens.length, ...config });
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  await writeFile(join(models.path(name), "tokenizer.json"), JSON.stringify({ model: { type: "WordLevel", vocab } }));
}

const linear = (...names: string[]) =>
  `merge_method: linear\nparameters: {weight: 1}\nmodels: [${names.map((name) => `{model: ${name}}`).join(", ")}]\ntokenizer_source: union\n`;

describe("a recipe with a tokenizer", () => {
  test("merges rows of the same token, and gives a head that some models have to all", async () => {
    const untied = {
      [EMBEDDING]: tensor([1, 2], [9, 9]),
      [HEAD]: tensor([1, 2], [10, 10]),
      "model.norm.weight": [1, 1],
    };
    await write("untied", ["x"], untied, { tie_word_embeddings: false });
    const { tensors, config } = await models.merge(linear("$a", "$b", "$untied"));
    // x: of a and untied, whose mean b has; y: of a and b; z: of b.
    const y = [(3 + 5 + 4) / 3, (4 + 6 + 5) / 3];
    expect(tensors[EMBEDDING]).toEqual([(1 + 5 + 9) / 3, (2 + 5.5 + 9) / 3, ...y, 7, 8].map(Math.fround));
    expect(tensors[HEAD]).toEqual([(1 + 5.5 + 10) / 3, (2 + 6 + 10) / 3, ...y, 7, 8].map(Math.fround));
    expect(JSON.parse(config)).toMatchObject({ vocab_size: 3, tie_word_embeddings: false });
  });

  test("puts overrides, the methods and the chat template into the folder", async () => {
    const recipe = await models.recipe(`${linear("$a", "$b")}chat_template: chatml\n`);
    const out = models.path("card");
    await mergeRecipe({ recipe, out, workers: 0, seed: 7, set: ["parameters.weight=2"] });
    expect(await readFile(join(out, "chat_template.jinja"), "utf8")).toBe(CHAT_TEMPLATES.chatml);
    const card = await readFile(join(out, "README.md"), "utf8");
    expect(card).toContain("tags:\n  - merge\n  - heddle\n---\n\n# card\n");
    expect(card).toContain("- `linear`: ");
    expect(card).toContain(`- \`${models.path("a")}\`\n- \`${models.path("b")}\`\n`);
    expect(card).toContain("chat_template: chatml\n# with --set parameters.weight=2\n# with --seed 7\n```\n");
  });

  test("names the file of a row that holds no number", async () => {
    await write("nan", ["y", "z"], { [EMBEDDING]: tensor([2, 2], [5, 6, 7, Number.NaN]), "model.norm.weight": [3, 3] });
    await expect(models.merge(linear("$a", "$nan"))).rejects.toThrow(
      `${models.path("nan")}/model.safetensors: tensor "${EMBEDDING}" holds NaN at element 5`,
    );
  });
});

describe("a recipe with a tokenizer refuses", () => {
  test("tensors whose rows would stay where they are", async () => {
    const bias = { [EMBEDDING]: tensor([2, 2], [5, 6, 7, 8]), "model.norm.weight": [3, 3], "lm_head.bias": [1, 2] };
    await write("bias", ["y", "z"], bias);
    expect(await models.problem(linear("$a", "$bias"))).toBe(
      'ModelError: bias: tensor "lm_head.bias" of shape [2] has a row for each token, too: with a tokenizer only embed_tokens, wte and lm_head.weight may',
    );
  });

  test("a config whose vocab_size is elsewhere", async () => {
    const tensors = { [EMBEDDING]: tensor([1, 2], [5, 6]) };
    await write("nested", ["y"], tensors, { vocab_size: undefined, text_config: { vocab_size: 1 } });
    expect(await models.problem(linear("$nested", "$a"))).toBe(
      "ModelError: nested: config.json has no vocab_size at its top, expected one with a tokenizer",
    );
  });

  test("recipes within, and models without an embedding", async () => {
    const inner = "{merge_method: linear, parameters: {weight: 1}, models: [{model: $a}]}";
    expect(await models.problem(linear(inner, "$b"))).toBe(
      `ModelError: a: "${EMBEDDING}" is computed, by an adapter or a recipe: with a tokenizer it must be a tensor of a folder`,
    );
    await write("none", ["y"], { "model.norm.weight": [3, 3] });
    expect(await models.problem(linear("$a", "$none"))).toBe(
      "ModelError: none: has no embedding of tokens, which a recipe with a tokenizer needs",
    );
  });

  test("to write over the folder whose tokenizer it takes", async () => {
    await write("other", ["x", "y"], { [EMBEDDING]: tensor([2, 2], [1, 2, 3, 4]) });
    const recipe = await models.recipe(linear("$a").replace("union", "$other"));
    const other = models.path("other");
    await expect(mergeRecipe({ recipe, out: other, overwrite: true, workers: 0 })).rejects.toThrow(
      `${other}: would replace ${other}, which is an input; give another folder to write`,
    );
  });
});
