import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { planTokenizer } from "../../merge/tokenizer-plan.js";
import { ModelError } from "../../model/errors.js";
import { newFolder } from "../model/folder.js";
import { MODELS, readTensor } from "./tokenizer-fixture.js";

const PLAIN = { tokens: {}, padToMultipleOf: null };

describe("planTokenizer refuses", () => {
  const [base, a, b] = MODELS.map(({ path }) => path) as [string, string, string];
  const file = (path: string) => join(path, "tokenizer.json");

  test.each([
    [{ kind: "model", model: "models/b" }, file(b), 'has no token "ab"'],
    [
      { kind: "model_token", model: "models/a", token: "zz", tokenId: null },
      file(a),
      'has no token "zz", which token "ab" should be like',
    ],
    [
      { kind: "model_token", model: "models/b", token: null, tokenId: 9 },
      b,
      'has no row 9 for token "ab", expected 0 to 8',
    ],
    [
      { kind: "model", model: "models/d" },
      "models/d",
      'source of token "ab", expected a model of the recipe: models/base, models/a, models/b',
    ],
  ] as const)("the source %o", async (source, path, problem) => {
    const settings = { source: "union", tokens: { ab: { source, force: false } }, padToMultipleOf: null };
    await expect(planTokenizer(settings, MODELS, 0)).rejects.toThrow(new ModelError(path, problem));
  });

  test("a token that no model has, without a source", async () => {
    const tokens = { zz: { source: null, force: true } };
    await expect(planTokenizer({ ...PLAIN, source: "base", tokens }, MODELS, 0)).rejects.toThrow(
      new ModelError(file(base), `has no token "zz", nor has any other model; expected a source for it`),
    );
  });

  test("a model without tokenizer.json", async () => {
    const dir = await newFolder();
    const models = [MODELS[0]!, { name: "x", path: dir, rows: 3 }];
    await expect(planTokenizer({ ...PLAIN, source: "base" }, models, 0)).rejects.toThrow(
      new ModelError(file(dir), `no such file, needed to tell which token each row of the embedding is`),
    );
  });

  test("a union of tokenizers of different types", async () => {
    const dir = await newFolder();
    const unigram = {
      model: {
        type: "Unigram",
        vocab: [
          ["<unk>", 0],
          ["▁a", -1.5],
        ],
      },
    };
    await writeFile(file(dir), JSON.stringify(unigram));
    const models = [MODELS[0]!, { name: "x", path: dir, rows: 2 }];
    await expect(planTokenizer({ ...PLAIN, source: "union" }, models, 0)).rejects.toThrow(
      new ModelError(
        file(dir),
        `is a tokenizer of type Unigram, expected BPE as ${file(base)}: their vocabularies have no union`,
      ),
    );
    expect((await planTokenizer({ ...PLAIN, source: dir }, models, 0)).vocabulary.get("▁a")).toBe(1);
  });

  test("a tokenizer with tokens that have no row", async () => {
    const models = [{ ...MODELS[0]!, rows: 8 }];
    await expect(planTokenizer({ ...PLAIN, source: "union" }, models, 0)).rejects.toThrow(
      new ModelError(file(base), `token "<base>" has id 8, expected less than 8, the rows of the embedding`),
    );
  });

  test("ids with gaps, where tokens are to be added", async () => {
    const dir = await newFolder();
    await writeFile(file(dir), JSON.stringify({ model: { type: "WordLevel", vocab: { a: 0, b: 2 } } }));
    const models = [{ name: "x", path: dir, rows: 3 }];
    const tokens = { zz: { source: { kind: "zero" }, force: false } } as const;
    await expect(planTokenizer({ ...PLAIN, source: "base", tokens }, models, 0)).rejects.toThrow(
      new ModelError(
        file(dir),
        `the ids have gaps: id 2, the next for a new token, is that of "b"; expected ids 0 to 1`,
      ),
    );
    expect((await planTokenizer({ ...PLAIN, source: "base" }, models, 0)).vocabSize).toBe(3);
  });

  test("embeddings of other sizes than the models have", async () => {
    const { places } = await readTensor("lm_head.weight");
    const plan = await planTokenizer({ ...PLAIN, source: "base" }, MODELS, 0);
    expect(() => plan.rows(0, [places[0]!, { ...places[1]!, shape: [11, 5] }, null])).toThrow(
      new ModelError(a, `an embedding or head has shape [11,5], expected [11,4]`),
    );
    expect(() => plan.rows(0, [places[0]!])).toThrow(
      new RangeError("1 places for 3 models, expected one each and that of model 0"),
    );
  });
});
