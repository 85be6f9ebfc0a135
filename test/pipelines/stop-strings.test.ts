import { describe, expect, test } from "vitest";
import type { Tokenizer } from "../../model/tokenizer.js";
import { cutAtStop, stopTokens } from "../../pipelines/stop-strings.js";

/** A vocabulary of four texts. */
const texts = ["ab", "c\n", "\n", "d"];
const tokenizer = {
  decode: async (ids: readonly number[]) => ids.map((id) => texts[id]).join(""),
} as Partial<Tokenizer> as Tokenizer;

describe("cutAtStop", () => {
  test.each<[string, number[], string[], { ids: number[]; text: string }]>([
    ["without stop texts keeps all", [0, 1, 2], [], { ids: [0, 1, 2], text: "abc\n\n" }],
    ["where none occurs keeps all", [0, 3], ["x", "ba"], { ids: [0, 3], text: "abd" }],
    ["ends with the token that completes the text", [0, 1, 2, 3], ["\n\n"], { ids: [0, 1, 2], text: "abc" }],
    ["ends before a text within a token", [0, 0, 3], ["b"], { ids: [0], text: "a" }],
    ["takes the text that is completed first", [0, 1, 3], ["d", "bc"], { ids: [0, 1], text: "a" }],
    ["of two in one token takes the one that begins first", [3, 0], ["b", "ab"], { ids: [3, 0], text: "d" }],
    ["may leave no text", [3], ["d"], { ids: [3], text: "" }],
  ])("%s", async (_, ids, stop, expected) => {
    expect(await cutAtStop(tokenizer, ids, stop)).toEqual(expected);
  });
});

describe("stopTokens", () => {
  /** As a vocabulary of sentencepiece spells them: blanks are U+2581, and some tokens are spelled but decode to nothing. */
  const vocabulary = { a: 0, "\u2581b": 1, "c\n": 2, "\n": 3, "<end\n>": 4, d: 5 };
  const decoded = ["a", " b", "c\n", "\n", "", "d"];
  const spelled = {
    vocabulary: () => vocabulary,
    decode: async (ids: readonly number[]) => ids.map((id) => decoded[id]).join(""),
  } as Partial<Tokenizer> as Tokenizer;

  test("are the tokens whose own text holds one of the texts", async () => {
    expect(await stopTokens(spelled, ["\n"])).toEqual([2, 3]);
    expect(await stopTokens(spelled, [" b", "d"])).toEqual([1, 5]);
    expect(await stopTokens(spelled, ["ab"])).toEqual([]);
    expect(await stopTokens(spelled, [])).toEqual([]);
  });

  test("are none where they are more than 128", async () => {
    const of = (count: number): Tokenizer => ({
      ...spelled,
      vocabulary: () => Object.fromEntries(Array.from({ length: count }, (_, id) => [`x${id}`, id])),
      decode: async () => "x",
    });
    expect((await stopTokens(of(128), ["x"])).length).toBe(128);
    expect(await stopTokens(of(129), ["x"])).toEqual([]);
  });
});
