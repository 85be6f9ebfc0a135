import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { mergesOf } from "../../convert/sentencepiece.js";
import { realTokenizer } from "../model/golden.js";

interface TokenizerJson {
  readonly added_tokens: readonly { readonly id: number }[];
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (string | readonly [string, string])[];
  };
}

/** Both models number the pieces that they were trained to have by their score: 0, -1, -2... The others have the score 0. */
test.each([
  ["gemma2", 580604],
  ["gemma3", 514906],
] as const)(
  "the merges of %s, out of its pieces and scores, are those of the hub's tokenizer.json",
  async (name, count) => {
    const text = await readFile(join(realTokenizer(name), "tokenizer.json"), "utf8");
    const { added_tokens: added, model } = JSON.parse(text) as TokenizerJson;
    const pieces: string[] = [];
    for (const [piece, id] of Object.entries(model.vocab)) pieces[id] = piece;
    const given = new Set(added.map(({ id }) => id));
    let trained = 0;
    const scores = pieces.map((piece, id) => (given.has(id) || /^(<0x..>|\t)$/.test(piece) ? 0 : -trained++));
    const merges = mergesOf({ pieces, scores }).map(([left, right]) => `${left} ${right}`);
    expect(merges).toHaveLength(count);
    const expected = model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
    expect(merges.findIndex((merge, rank) => merge !== expected[rank])).toBe(-1);
  },
);
