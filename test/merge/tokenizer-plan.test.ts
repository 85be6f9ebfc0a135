import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { readRecipe } from "../../merge/recipe.js";
import { planTokenizer, type TokenizerModel } from "../../merge/tokenizer-plan.js";
import { loadTokenizer } from "../../model/tokenizer.js";
import { copyOf, newFolder } from "../model/folder.js";
import { computeRows, FOLDER, MODELS, readTensor } from "./tokenizer-fixture.js";

const PLAIN = { tokens: {}, padToMultipleOf: null };
const WEIGHTS = [0.5, 0.3, 0.2];

describe("planTokenizer makes what mergekit makes", () => {
  test.each(["union", "base", "other", "tokens"])("%s", async (name) => {
    const settings = (await readRecipe(`${FOLDER}/recipes/${name}.yml`)).tokenizer!;
    const source = settings.source === "models/a" ? MODELS[1]!.path : settings.source;
    const plan = await planTokenizer({ ...settings, source }, MODELS, 0);

    const theirs = JSON.parse(await readFile(`${FOLDER}/expected/${name}/tokenizer.json`, "utf8"));
    const ids = new Map<string, number>(Object.entries(theirs.model.vocab));
    for (const { content, id } of theirs.added_tokens) ids.set(content, id);
    expect(new Set(plan.vocabulary.keys())).toEqual(new Set(ids.keys()));

    const ours = plan.files["tokenizer.json"] ?? (await readFile(join(plan.from, "tokenizer.json"), "utf8"));
    const withoutId = ({ id: _, ...token }: { id: number; content: string }) => token;
    const byContent = (text: { added_tokens: { id: number; content: string }[] }) =>
      text.added_tokens.map(withoutId).sort((x, y) => (x.content < y.content ? -1 : 1));
    expect(byContent(JSON.parse(ours))).toEqual(byContent(theirs));

    const expected = await openCheckpoint(`${FOLDER}/expected/${name}`);
    for (const tensor of ["model.embed_tokens.weight", "lm_head.weight"]) {
      const { places, values } = await readTensor(tensor);
      const models = MODELS.map((_, i) => computeRows(plan.rows(i, places), values));
      const wanted = await expected.readFloat32(tensor);
      expect(expected.info(tensor).shape).toEqual([plan.vocabSize, 4]);
      const check = (row: number, theirRow: number, token: string) => {
        for (let i = 0; i < 4; i++) {
          const merged = WEIGHTS.reduce((sum, weight, m) => sum + weight * models[m]![row]![i]!, 0);
          expect(merged, `${tensor} ${token} ${i}`).toBeCloseTo(wanted[theirRow * 4 + i]!, 5);
        }
      };
      for (const [token, row] of plan.vocabulary) check(row, ids.get(token)!, token);
      for (let row = plan.vocabulary.size; row < plan.vocabSize; row++) check(row, row, "padding");
    }
    await expected.close();
  });
});

describe("planTokenizer", () => {
  test("adds tokens after the base's: vocabularies first, then added tokens, in the order of the models and of their ids", async () => {
    const plan = await planTokenizer({ ...PLAIN, source: "union" }, MODELS, 0);
    expect([...plan.vocabulary.keys()].join(" ")).toBe(
      "<unk> <s> </s> a b c ab 1 <base> x only-a shared 0 <im> <both>",
    );
    expect([...plan.vocabulary.values()]).toEqual(Array.from({ length: 15 }, (_, i) => i));
    expect(plan.vocabSize).toBe(15);
    expect(plan.from).toBe(MODELS[0]!.path);
  });

  test("writes a tokenizer that Hugging Face's library gives the same ids", async () => {
    const settings = (await readRecipe(`${FOLDER}/recipes/tokens.yml`)).tokenizer!;
    const { vocabulary, files } = await planTokenizer(settings, MODELS, 0);
    const dir = await newFolder();
    await writeFile(join(dir, "tokenizer.json"), files["tokenizer.json"]!);
    const tokenizer = (await loadTokenizer(dir))!;
    expect([...vocabulary.keys()].map((token) => tokenizer.idOf(token))).toEqual([...vocabulary.values()]);
    expect(tokenizer.vocabSize).toBe(16);
    expect(await tokenizer.encode("ab<both>only-a<new>")).toEqual(
      ["ab", "<both>", "only-a", "<new>"].map((token) => vocabulary.get(token)),
    );
  });

  test("a missing token is the base's row, else the only owner's, else the owners' mean", async () => {
    const { places } = await readTensor("lm_head.weight");
    const picksOf = async (base: number | null, model: number, token: string) => {
      const plan = await planTokenizer({ ...PLAIN, source: "union" }, MODELS, base);
      const { picks, tensors, rows } = plan.rows(model, places);
      const row = plan.vocabulary.get(token)!;
      return Array.from(tensors.subarray(picks[row], picks[row + 1]), (tensor, k) => [tensor, rows[picks[row]! + k]]);
    };
    expect(await picksOf(0, 0, "b")).toEqual([[0, 4]]);
    expect(await picksOf(0, 2, "ab")).toEqual([[0, 6]]);
    expect(await picksOf(0, 2, "x")).toEqual([[1, 5]]);
    expect(await picksOf(0, 0, "shared")).toEqual([
      [1, 8],
      [2, 5],
    ]);
    expect(await picksOf(1, 0, "shared")).toEqual([[1, 8]]);
    expect(await picksOf(null, 2, "ab")).toEqual([
      [0, 6],
      [1, 6],
    ]);
  });

  test("a token that several models have added is found as the first of them says, also where the base has it as a plain one", async () => {
    const path = await copyOf("mergekit/tokenizer/models/a");
    const added = [{ id: 4, content: "a", lstrip: true, special: false }];
    const model = { type: "BPE", vocab: { b: 3 }, merges: [] };
    await writeFile(join(path, "tokenizer.json"), JSON.stringify({ added_tokens: added, model }));
    const models = [MODELS[0]!, { ...MODELS[1]!, path }, MODELS[2]!];
    const { files } = await planTokenizer({ ...PLAIN, source: "union" }, models, 0);
    const tokens = JSON.parse(files["tokenizer.json"]!).added_tokens as { id: number }[];
    expect(tokens.find(({ id }) => id === 3)).toEqual({ id: 3, content: "a", lstrip: true, special: false });
  });

  test("rows of models that take no part in a tensor are not used", async () => {
    const { places } = await readTensor("lm_head.weight");
    const plan = await planTokenizer({ ...PLAIN, source: "union" }, MODELS, 0);
    const source = plan.rows(2, [null, places[1]!, places[2]!]);
    expect(source.places).toEqual([places[1], places[2]]);
    const of = (token: string) => {
      const [from, to] = [0, 1].map((i) => source.picks[plan.vocabulary.get(token)! + i]);
      return [[...source.tensors.subarray(from, to)], [...source.rows.subarray(from, to)]];
    };
    expect(of("ab")).toEqual([[0], [6]]);
    expect(of("1")).toEqual([[], []]);
  });

  test("copies the files of base or another folder, and drops rows without a token", async () => {
    const plan = await planTokenizer({ ...PLAIN, source: "base" }, MODELS, 0);
    expect(plan.files).toEqual({});
    expect(plan.vocabSize).toBe(9);
    const other = await planTokenizer({ ...PLAIN, source: MODELS[1]!.path, padToMultipleOf: 8 }, MODELS, 0);
    expect(other).toMatchObject({ files: {}, from: MODELS[1]!.path, vocabSize: 16 });
    expect(other.rows(0, (await readTensor("lm_head.weight")).places).meanFrom).toBe(11);
  });

  test("ids of a config follow their tokens, else they are those of the new tokenizer's special tokens", async () => {
    const model = MODELS[2]!;
    const small: TokenizerModel = { ...model, path: await copyOf("mergekit/tokenizer/models/b"), rows: 10 };
    const plan = await planTokenizer({ ...PLAIN, source: small.path }, MODELS, 0);
    const config = { vocab_size: 12, bos_token_id: 1, eos_token_id: [2, 7], pad_token_id: 8, unk_token_id: 0 };
    expect(plan.tokenIds(config)).toEqual({ bos_token_id: 2, eos_token_id: [1], pad_token_id: null });
    expect(plan.tokenIds({ bos_token_id: 8, x_token_id: null })).toEqual({ bos_token_id: 2 });
    const base = await planTokenizer({ ...PLAIN, source: "union" }, MODELS, 0);
    expect(base.tokenIds(config)).toEqual({});
  });

  test("lists new tokens in tokenizer_config.json and added_tokens.json where these list tokens", async () => {
    const path = await copyOf("mergekit/tokenizer/models/base");
    await writeFile(join(path, "added_tokens.json"), '{\n  "<base>": 8\n}\n');
    await writeFile(
      join(path, "tokenizer_config.json"),
      '{\n  "added_tokens_decoder": {"8": {"content": "<base>"}},\n  "n": 1.0\n}\n',
    );
    const models = [{ ...MODELS[0]!, path }];
    const tokens = { "<new>": { source: { kind: "zero" }, force: false } } as const;
    const { files } = await planTokenizer({ source: "base", tokens, padToMultipleOf: null }, models, 0);
    expect(files["added_tokens.json"]).toBe('{\n  "<base>": 8,\n  "<new>": 9\n}\n');
    expect(files["tokenizer_config.json"]).toBe(`{
  "added_tokens_decoder": {
    "8": {
      "content": "<base>"
    },
    "9": {
      "content": "<new>",
      "single_word": false,
      "lstrip": false,
      "rstrip": false,
      "normalized": true,
      "special": false
    }
  },
  "n": 1.0
}
`);
  });
});
