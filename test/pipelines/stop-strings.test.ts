/** Texts that end a completion: where sampling finds them, and where they are cut. */
import { beforeAll, describe, expect, test } from "vitest";
import { loadTokenizer, type Tokenizer } from "../../model/tokenizer.js";
import { stopAt } from "../../pipelines/stop-strings.js";
import { ENDED, START } from "../../student/stop-texts.js";
import { fixture } from "../model/golden.js";

describe("cut", () => {
  /** A vocabulary of four texts. */
  const texts = ["ab", "c\n", "\n", "d"];
  const tokenizer = {
    decode: async (ids: readonly number[]) => ids.map((id) => texts[id]).join(""),
    vocabulary: () => Object.fromEntries(texts.map((text, id) => [text, id])),
    specialTokens: [],
  } as Partial<Tokenizer> as Tokenizer;

  test.each<[string, number[], string[], { ids: number[]; text: string }]>([
    ["without stop texts keeps all", [0, 1, 2], [], { ids: [0, 1, 2], text: "abc\n\n" }],
    ["where none occurs keeps all", [0, 3], ["x", "ba"], { ids: [0, 3], text: "abd" }],
    ["ends with the token that completes the text", [0, 1, 2, 3], ["\n\n"], { ids: [0, 1, 2], text: "abc" }],
    ["ends before a text within a token", [0, 0, 3], ["b"], { ids: [0], text: "a" }],
    ["takes the text that is completed first", [0, 1, 3], ["d", "bc"], { ids: [0, 1], text: "a" }],
    ["of two in one token takes the one that begins first", [3, 0], ["b", "ab"], { ids: [3, 0], text: "d" }],
    ["may leave no text", [3], ["d"], { ids: [3], text: "" }],
  ])("%s", async (_, ids, stop, expected) => {
    expect(await stopAt(tokenizer, stop, texts.length).cut(ids)).toEqual(expected);
  });
});

describe("cut, of a letter that is several byte tokens", () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = (await loadTokenizer(fixture("arithmetic/student")))!;
  });
  /** As hexadecimal digits of bytes, each a token of its own. */
  const bytesOf = (digits: string) => digits.split(" ").map((byte) => tokenizer.idOf(`<0x${byte.toUpperCase()}>`)!);

  // \u00e9 is c3 a9, \u00fc is c3 bc, \u{1f600} is f0 9f 98 80.
  test.each<[string, string, string, string, string]>([
    ["once", "c3 a9 c3 a9", "\u00e9", "c3 a9", ""],
    ["twice", "c3 a9 c3 a9 c3 a9", "\u00e9\u00e9", "c3 a9 c3 a9", ""],
    ["behind another letter", "c3 bc c3 a9 c3", "\u00e9", "c3 bc c3 a9", "\u00fc"],
    ["behind a byte that begins a letter", "c3 c3 a9", "\u00e9", "c3 c3 a9", "\ufffd"],
    ["before a letter that is not whole", "f0 9f 98 80 f0 9f 98", "\u{1f600}", "f0 9f 98 80", ""],
  ])("%s", async (_, ids, stop, kept, text) => {
    expect(await tokenizer.decode(bytesOf("c3 c3 a9"))).toBe("\ufffd\ufffd\ufffd");
    expect(await stopAt(tokenizer, [stop], tokenizer.vocabSize).cut(bytesOf(ids))).toEqual({
      ids: bytesOf(kept),
      text,
    });
  });
});

describe("texts", () => {
  /** As a vocabulary of Gemma spells them: blanks are U+2581, bytes <0x..>; special tokens decode to nothing. */
  const vocabulary = { a: 0, "\u2581b": 1, "c\n": 2, "\n": 3, "<end\n>": 4, d: 5, "<0xC3>": 6, "<0xA9>": 7 };
  const spelled = { vocabulary: () => vocabulary, specialTokens: ["<end\n>"] } as Partial<Tokenizer> as Tokenizer;
  /** How many of the ids sampling goes through. */
  const read = (stop: string[], ids: number[]) => {
    const { row_V, next_K } = stopAt(spelled, stop, 10).texts;
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
