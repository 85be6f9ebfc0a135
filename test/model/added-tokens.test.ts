import { describe, expect, test } from "vitest";
import { addedTokens, withoutSpecialTokens } from "../../model/added-tokens.js";

const tokens = [
  { id: 0, content: "<eos>", special: true },
  { id: 1, content: "}]", special: false },
  { id: 2, content: '[{"a": "\\', special: true },
];
const tokenizer = { version: "1.0", model: { type: "BPE", vocab: { added_tokens: 3, "]": 4 } } };

describe("the added tokens of tokenizer.json", () => {
  test.each([
    ["first", { added_tokens: tokens, ...tokenizer }],
    ["last", { ...tokenizer, added_tokens: tokens }],
  ])("are found where they come %s", (_, value) => {
    for (const indent of [0, 2]) {
      const json = JSON.stringify(value, null, indent);
      expect(addedTokens(json)).toEqual(tokens);
      expect(JSON.parse(withoutSpecialTokens(json))).toEqual({ ...value, added_tokens: [tokens[1]] });
    }
  });

  test("may be none", () => {
    expect(addedTokens(JSON.stringify({ added_tokens: [], ...tokenizer }))).toEqual([]);
    const json = JSON.stringify(tokenizer);
    expect(addedTokens(json)).toEqual([]);
    expect(withoutSpecialTokens(json)).toBe(json);
  });
});
