// Recipes of mergekit, from the file to the model folder, against what mergekit 0.1.5 wrote for them.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "safetensors-ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { maxDifference } from "./warp-fixture.js";

const fixtures = fileURLToPath(new URL("../fixtures/mergekit", import.meta.url));
const before = process.cwd();
let root: string;
// The recipes name models relative to where mergekit was started.
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "golden-"));
  process.chdir(fixtures);
});
afterAll(async () => {
  process.chdir(before);
  await rm(root, { recursive: true });
});

async function readModel(path: string): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(path);
  const read = checkpoint.tensors.map(
    async ({ name }): Promise<[string, Float32Array]> => [name, await checkpoint.readFloat32(name)],
  );
  const model = new Map(await Promise.all(read));
  await checkpoint.close();
  return model;
}

/** Reads a merge by its recipe. */
async function merge(name: string, workers = 1): Promise<Map<string, Float32Array>> {
  const out = join(root, `${name}-${workers}`);
  await mergeRecipe({ recipe: `recipes/${name}.yml`, out, workers, overwrite: true });
  return readModel(out);
}

const EXACT = [
  ...["linear", "linear-gradient", "linear-slices", "linear-unnormalized", "slerp-siblings", "slerp-unrelated"],
  ...["nuslerp-base", "nuslerp-flat", "nuslerp-rows", "nuslerp-rowwise", "multislerp", "multislerp-base", "karcher"],
  ...["task-arithmetic", "task-arithmetic-lambda", "ties", "ties-int8mask", "ties-normalize", "breadcrumbs"],
  ...["breadcrumbs-ties", "model-stock", "model-stock-filterwise", "sce", "nearswap", "arcee-fusion"],
];

describe("gives what mergekit gives, tensor by tensor within 2e-6", () => {
  test.each(EXACT)("%s", async (name) => {
    const found = await merge(name);
    const expected = await readModel(join(fixtures, "expected", `${name}.safetensors`));
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [tensor, values] of expected) {
      expect(maxDifference(found.get(tensor)!, values), tensor).toBeLessThan(2e-6);
    }
  });

  test("linear-bf16-out, but for a bfloat16's last bit where float32 sums differ in theirs", async () => {
    const found = await merge("linear-bf16-out");
    for (const [tensor, values] of await readModel(join(fixtures, "expected/linear-bf16-out.safetensors"))) {
      const others = values.filter((x, i) => Math.abs(x - found.get(tensor)![i]!) > Math.abs(x) * 2 ** -8);
      expect(others.length, tensor).toBe(0);
    }
  });
});

describe("has the same bits", () => {
  test.each(["linear", "ties", "dare-ties", "della", "nuslerp-base"])(
    "on one thread, two and four: %s",
    async (name) => {
      const [one, two, four] = [await merge(name), await merge(name, 2), await merge(name, 4)];
      expect(two).toEqual(one);
      expect(four).toEqual(one);
    },
  );
});

test("slices of layers give a config with as many, and the layer types they had", async () => {
  await merge("linear-slices");
  const config = JSON.parse(await readFile(join(root, "linear-slices-1", "config.json"), "utf8"));
  const source = JSON.parse(await readFile("models/a/config.json", "utf8"));
  expect(config.num_hidden_layers).toBe(3);
  expect(config.layer_types).toEqual(source.layer_types.slice(0, 3));
});
