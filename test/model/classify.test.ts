/** A model for sequence classification against transformers (test/peers/reward_model.py). */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { sizesOf, sizesOfBatch } from "../../model/batch.js";
import { labelScores } from "../../model/classify.js";
import { openModel, openWeights } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { copyOf, setKeys } from "./folder.js";
import { fixture, readGolden } from "./golden.js";

const dir = fixture("models/gemma2-tiny-reward");
const before = process.env.HEDDLE_JIT;
afterAll(() => {
  if (before === undefined) delete process.env.HEDDLE_JIT;
  else process.env.HEDDLE_JIT = before;
});

test.each(["0", "1"])("the scores of rows of several lengths are transformers' logits, HEDDLE_JIT=%s", async (jit) => {
  process.env.HEDDLE_JIT = jit;
  const rows = JSON.parse(await readFile(join(dir, "rows.json"), "utf8")) as number[][];
  const { config, parameters } = await loadParameters(await openWeights(dir));
  const expected = (await readGolden(dir)).logits!.arraySync() as number[][];
  for (const sizes of [
    sizesOf(rows, { rows: rows.length, samples: 1, maxNewTokens: 1 }),
    sizesOfBatch(rows, { likely: 20, limit: config.maxPositionEmbeddings, sharedPrefix: 1 }),
  ]) {
    const got = labelScores(parameters, config, rows, sizes);
    got.forEach((scores, row) => {
      scores.forEach((score, label) => {
        expect(Math.abs(score - expected[row]![label]!)).toBeLessThan(2e-5);
      });
    });
    expect(got.map(({ length }) => length)).toEqual([3, 3, 3]);
  }
});

test("where a language model is needed it is refused", async () => {
  await expect(openModel(dir)).rejects.toThrow(
    `${join(dir, "config.json")}: describes a model for sequence classification (3 labels), expected a language model; \`heddle score\` takes both`,
  );
});

test("two labels are the default, as transformers leaves them out", async () => {
  const copy = await copyOf("models/gemma2-tiny-reward");
  await setKeys(join(copy, "config.json"), { id2label: undefined });
  const { config } = await openWeights(copy);
  expect(config.numLabels).toBe(2);
  await expect(loadParameters({ dir: copy, config })).rejects.toThrow(
    `${copy}: tensor "score.weight" has shape [3,32], expected [2,32] by config.json`,
  );
});
