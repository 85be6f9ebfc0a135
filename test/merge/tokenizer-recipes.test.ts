// Recipes with a tokenizer, from the file to the model folder, against what mergekit 0.1.5 wrote for them, token by token.
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "safetensors-ts";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { readTokenizerFile } from "../../merge/tokenizer-file.js";

const fixtures = fileURLToPath(new URL("../fixtures/mergekit/tokenizer", import.meta.url));
const before = process.cwd();
let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tokenizer-"));
  process.chdir(fixtures);
});
afterAll(async () => {
  process.chdir(before);
  await rm(root, { recursive: true });
});

/** Rows of an embedding or head by token, and the padding behind them. */
async function rowsOf(folder: string, tensor: string) {
  const { vocabulary } = await readTokenizerFile(folder);
  const checkpoint = await openCheckpoint(folder);
  const [rows, columns] = checkpoint.info(tensor).shape as [number, number];
  const values = await checkpoint.readFloat32(tensor);
  await checkpoint.close();
  const row = (id: number) => [...values.subarray(id * columns, (id + 1) * columns)];
  const end = Math.max(...vocabulary.values()) + 1;
  const byToken = new Map([...vocabulary].map(([token, id]) => [token, row(id)]));
  return { byToken, padding: Array.from({ length: rows - end }, (_, i) => row(end + i)), rows };
}

test.each(["union", "base", "other", "tokens"])(
  "%s: embedding and head, their padding, and the config",
  async (name) => {
    const out = join(root, name);
    await mergeRecipe({ recipe: `recipes/${name}.yml`, out });
    const expected = join(fixtures, "expected", name);
    for (const tensor of ["model.embed_tokens.weight", "lm_head.weight"]) {
      const [found, wanted] = [await rowsOf(out, tensor), await rowsOf(expected, tensor)];
      expect(found.rows).toBe(wanted.rows);
      expect([...found.byToken.keys()].sort()).toEqual([...wanted.byToken.keys()].sort());
      for (const [token, row] of wanted.byToken) {
        for (const [i, x] of row.entries())
          expect(found.byToken.get(token)![i], `${tensor} ${token}`).toBeCloseTo(x, 5);
      }
      for (const [k, row] of wanted.padding.entries()) {
        for (const [i, x] of row.entries()) expect(found.padding[k]![i], `${tensor} padding`).toBeCloseTo(x, 5);
      }
      const config = JSON.parse(await readFile(join(out, "config.json"), "utf8"));
      expect(config.vocab_size).toBe(wanted.rows);
    }
    expect(await readdir(out)).toEqual(
      expect.arrayContaining(["README.md", "tokenizer.json", "tokenizer_config.json"]),
    );
  },
);

test("without a tokenizer, vocabularies of other sizes are an error that names the way out", async () => {
  const text = await readFile("recipes/union.yml", "utf8");
  const recipe = join(root, "plain.yml");
  const { writeFile } = await import("node:fs/promises");
  await writeFile(recipe, text.replace(/^tokenizer_source:.*$/m, ""));
  await expect(mergeRecipe({ recipe, out: join(root, "plain") })).rejects.toThrow(/tokenizer_source/);
});
