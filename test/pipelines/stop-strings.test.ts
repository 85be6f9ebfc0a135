import { describe, expect, test } from "vitest";
import type { Tokenizer } from "../../model/tokenizer.js";
import { cutAtStop, stopTextsOf } from "../../pipelines/stop-strings.js";
import { ENDED, START } from "../../student/stop-texts.js";

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

describe("stopTextsOf", () => {
  /** As a vocabulary of Gemma spells them: blanks are U+2581, bytes <0x..>; special tokens decode to nothing. */
  const vocabulary = { a: 0, "\u2581b": 1, "c\n": 2, "\n": 3, "<end\n>": 4, d: 5, "<0xC3>": 6, "<0xA9>": 7 };
  const spelled = { vocabulary: () => vocabulary, specialTokens: ["<end\n>"] } as Partial<Tokenizer> as Tokenizer;
  /** How many of the ids sampling goes through. */
  const read = (stop: string[], ids: number[]) => {
    const { row_V, next_K } = stopTextsOf(spelled, stop, 10);
    let [state, count] = [START, 0];
    for (; state !== ENDED && count < ids.length; count++) state = next_K[row_V[ids[count]!]! + state]!;
    return state === ENDED ? count : null;
  };

  test.each<[string, string[], number[], number | null]>([
    ["a token that is one", ["d"], [0, 5, 0], 2],
    ["a token that holds one", ["\n"], [0, 2, 0], 2],
    ["one of several tokens", ["a bc"], [0, 0, 1, 2, 5], 4],
    ["of two the first that is whole", ["dd", "b\n"], [1, 3, 5, 5], 2],
    ["across special tokens and rows without a token", ["ad"], [0, 4, 9, 5], 4],
    ["a letter in bytes", ["d\u00e9"], [5, 6, 7], 3],
    ["none", ["ad"], [0, 1, 5, 4], null],
  ])("finds %s", (_, stop, ids, count) => {
    expect(read(stop, ids)).toBe(count);
  });
});
