// Adapters in recipes: MODEL+ADAPTER.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type NamedTensor, writeSafetensors } from "safetensors-ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Models, tensor } from "./plan-fixture.js";

const W = "model.layers.0.w.weight";
const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  const weights = (x: number) => ({ [EMBEDDING]: tensor([2, 1], [x, x]), [W]: tensor([2, 2], [x, 0, 0, x]) });
  await models.write("a", weights(1), { model_type: "gemma2" });
  await models.write("b", weights(3), { model_type: "gemma2" });
  // 4 / 1 times B A = [[4, 8], [12, 24]].
  await writeAdapter("one", {
    [`${W.slice(0, -7)}.lora_A.weight`]: tensor([1, 2], [1, 2]),
    [`${W.slice(0, -7)}.lora_B.weight`]: tensor([2, 1], [1, 3]),
  });
  await writeAdapter("head", { [HEAD]: tensor([2, 1], [7, 8]) });
  await writeAdapter("other", { "model.norm.weight": tensor([1], [1]) });
});
afterAll(() => models.remove());

async function writeAdapter(name: string, tensors: Record<string, NamedTensor>): Promise<void> {
  const folder = models.path(name);
  const named = Object.entries(tensors).map(([name, values]) => ({ ...values, name: `base_model.model.${name}` }));
  await mkdir(folder);
  await writeSafetensors(join(folder, "adapter_model.safetensors"), named);
  await writeFile(join(folder, "adapter_config.json"), JSON.stringify({ peft_type: "LORA", r: 1, lora_alpha: 4 }));
}

const linear = (...names: string[]) =>
  `merge_method: linear\nparameters: {weight: 1}\nmodels: [${names.map((name) => `{model: ${name}}`).join(", ")}]\n`;

describe("a model with an adapter", () => {
  test("is another model than the one without; both are read once, and are inputs", async () => {
    const { tensors } = await models.merge(linear("$a+$one", "$a"));
    expect(tensors).toEqual({ [EMBEDDING]: [1, 1], [W]: [3, 4, 6, 13] });
    const { plan, models: read } = await models.plan(linear("$a+$one", "$a"));
    expect(plan.files).toHaveLength(2);
    expect(read).toEqual(["a", "one"].map((name) => models.path(name)));
  });

  test("may be the base, which is no member then", async () => {
    const recipe = `merge_method: task_arithmetic\nbase_model: $a+$one\nparameters: {weight: 0.5}\nmodels: [{model: $a+$one}, {model: $b}]\n`;
    expect((await models.merge(recipe)).tensors[W]).toEqual([4, 4, 6, 14]);
  });

  test("has a head of its own where the adapter changes a tied one", async () => {
    const { tensors, config } = await models.merge(linear("$a+$head", "$b"));
    expect(tensors).toMatchObject({ [EMBEDDING]: [2, 2], [HEAD]: [5, 5.5] });
    expect(JSON.parse(config).tie_word_embeddings).toBe(false);
  });

  test("must have what the adapter is for", async () => {
    expect(await models.problem(linear("$a+$other"))).toBe(
      'ModelError: other/adapter_model.safetensors: is for a model with a tensor "model.norm.weight", which a has not: an adapter for another base?',
    );
    await mkdir(models.path("none"));
    expect(await models.problem(linear("$a+$none"))).toBe(
      "ModelError: none: has no adapter_config.json, expected the folder of a PEFT adapter",
    );
  });
});
