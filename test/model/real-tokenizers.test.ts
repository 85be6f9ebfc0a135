/** The tokenizers of Gemma 2 and Gemma 3 on hard strings. Ids were made with Python: test/peers/tokenizer_corpus.py. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import { incrementalDecoder, loadTokenizer, type Tokenizer } from "../../model/tokenizer.js";
import { fixture, realTokenizer } from "./golden.js";

type Golden = { readonly sha256: readonly string[]; readonly every50th: readonly (readonly number[])[] };
type Corpus = { readonly texts: string[] } & Record<string, { readonly ids: Golden; readonly plain: Golden }>;

const hash = (ids: readonly number[]): string => createHash("sha256").update(ids.join()).digest("hex").slice(0, 16);

describe.each([
  ["gemma2", 256_000],
  ["gemma3", 262_145],
])("%s", (name, vocabSize) => {
  let corpus: Corpus;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    corpus = JSON.parse(gunzipSync(await readFile(fixture("tokenizers/corpus.json.gz"))).toString()) as Corpus;
    tokenizer = (await loadTokenizer(realTokenizer(name)))!;
  });

  async function expectGolden(encode: (text: string) => Promise<number[]>, { sha256, every50th }: Golden) {
    const ids = await Promise.all(corpus.texts.map(encode));
    expect(ids.filter((_, i) => i % 50 === 0)).toEqual(every50th);
    expect(corpus.texts.filter((_, i) => hash(ids[i]!) !== sha256[i])).toEqual([]);
    return ids;
  }

  test("has the vocabulary that the model was trained with", () => {
    expect(tokenizer.vocabSize).toBe(vocabSize);
    expect(["<pad>", "<eos>", "<bos>", "<unk>"].map(tokenizer.idOf)).toEqual([0, 1, 2, 3]);
    expect(tokenizer.specialTokens.slice(0, 6)).toEqual([
      "<pad>",
      "<eos>",
      "<bos>",
      "<unk>",
      "<start_of_turn>",
      "<end_of_turn>",
    ]);
  });

  test("gives 2,000 hard strings Python's ids", async () => {
    expect(corpus.texts.length).toBe(2000);
    await expectGolden(tokenizer.encode, corpus[name]!.ids);
  });

  test("gives them Python's ids with encode_special_tokens too, and those are no special token's", async () => {
    const ids = await expectGolden(tokenizer.encodePlain, corpus[name]!.plain);
    const special = new Set(tokenizer.specialTokens.map(tokenizer.idOf));
    expect(corpus.texts.filter((_, i) => ids[i]!.some((id) => special.has(id)))).toEqual([]);
  });

  // Lost are "▁", which spaces are written as, and halves of surrogate pairs; special tokens come back from plain ids.
  test("gives the text back, at once and id by id", async () => {
    for (const [i, text] of corpus.texts.entries()) {
      const expected = Buffer.from(text).toString().replaceAll("▁", " ");
      const ids = await tokenizer.encodePlain(text);
      expect(await tokenizer.decode(ids)).toBe(expected);
      if (i % 5 > 0 || ids.length > 1000) continue;
      const decode = incrementalDecoder(tokenizer);
      let streamed = "";
      for (const id of ids) streamed += await decode([id]);
      expect(streamed + (await decode([], { last: true }))).toBe(expected);
    }
  });
});
