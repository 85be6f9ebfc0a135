// Adapters in recipes, from the file to the model folder, against what PEFT's merge_and_unload gives.
import { join } from "node:path";
import { openCheckpoint, toFloat32, writeSafetensors } from "safetensors-ts";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { copyOf } from "../model/folder.js";
import { fixture } from "../model/golden.js";
import { Models } from "./plan-fixture.js";

const LORA = fixture("models/gemma2-tiny-lora");
const MODEL = fixture("models/gemma2-tiny");

let models: Models;
beforeAll(async () => {
  models = await Models.create();
});
afterAll(() => models.remove());

async function passthrough(model: string, dtype: string, out: string): Promise<string> {
  const recipe = await models.recipe(`merge_method: passthrough\nmodels: [{model: ${model}}]\ndtype: ${dtype}\n`);
  await mergeRecipe({ recipe, out: models.path(out), workers: 0 });
  return models.path(out);
}

test("passthrough of MODEL+ADAPTER gives the merged weights, and all others as they are", async () => {
  // PEFT had read this base as bfloat16.
  const base = await passthrough(MODEL, "bfloat16", "base");
  const [merged, before, golden] = await Promise.all(
    [await passthrough(`${base}+${LORA}`, "float32", "merged"), base, join(LORA, "golden.safetensors")].map((path) =>
      openCheckpoint(path),
    ),
  );
  expect(merged!.tensors.map(({ name }) => name)).toEqual(before!.tensors.map(({ name }) => name));
  const compared = golden!.tensors.filter(({ name }) => name.startsWith("merged."));
  expect(compared).toHaveLength(8);
  for (const { name } of compared) {
    const [found, expected] = [await merged!.readFloat32(name.slice(7)), await golden!.readFloat32(name)];
    expect(Math.max(...found.map((x, i) => Math.abs(x - expected[i]!))), name).toBeLessThan(1e-6);
  }
  for (const { name } of before!.tensors.filter(({ name }) => !/[qkvo]_proj/.test(name))) {
    expect(await merged!.readFloat32(name), name).toEqual(await before!.readFloat32(name));
  }
  await Promise.all([merged, before, golden].map((file) => file!.close()));
});

test("an adapter with a number that is none is an error that names its file", async () => {
  const adapter = await copyOf("models/gemma2-tiny-lora");
  const file = join(adapter, "adapter_model.safetensors");
  const checkpoint = await openCheckpoint(file);
  const tensors = await Promise.all(
    checkpoint.tensors.map(async ({ name, dtype, shape }) => ({
      ...{ name, dtype, shape },
      data: await checkpoint.read(name),
    })),
  );
  await checkpoint.close();
  const broken = tensors.find(({ name }) => name.includes("layers.1.self_attn.q_proj.lora_B"))!;
  const values = toFloat32(broken.data, "F32");
  values[0] = Number.NaN;
  broken.data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  await writeSafetensors(file, tensors);
  await expect(passthrough(`${MODEL}+${adapter}`, "float32", "broken")).rejects.toThrow(
    `${file}: tensor "model.layers.1.self_attn.q_proj.weight" holds NaN at element 0`,
  );
});
