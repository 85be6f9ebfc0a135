// The tokenizer of a recipe: what it is read as, and what is wrong with it.
import { describe, expect, test } from "vitest";
import { checkTokenizer } from "../../merge/recipe-tokenizer.js";
import { mistakesOf } from "./recipe-fixture.js";

const read = (recipe: Readonly<Record<string, unknown>>) => {
  const mistakes: string[] = [];
  const settings = checkTokenizer(recipe, (path, problem) => mistakes.push(`${path.join(".")}: ${problem}`));
  expect(mistakes).toEqual([]);
  return settings;
};

test("reads tokenizer_source and tokenizer, with mergekit's defaults", () => {
  expect(read({})).toBeNull();
  expect(read({ tokenizer_source: "base" })).toEqual({ source: "base", tokens: {}, padToMultipleOf: null });
  expect(read({ tokenizer: {} })).toEqual({ source: "union", tokens: {}, padToMultipleOf: null });
  const tokens = {
    "<a>": { source: "m", force: true },
    "<b>": { source: { kind: "zero" } },
    "<c>": { source: { kind: "model_token", model: "m", token: "<x>" } },
    "<d>": { source: { kind: "model_token", model: "m", token_id: 0 } },
    "<e>": {},
  };
  expect(read({ tokenizer: { source: "m", pad_to_multiple_of: 64, tokens } })).toEqual({
    source: "m",
    padToMultipleOf: 64,
    tokens: {
      "<a>": { source: { kind: "model", model: "m" }, force: true },
      "<b>": { source: { kind: "zero" }, force: false },
      "<c>": { source: { kind: "model_token", model: "m", token: "<x>", tokenId: null }, force: false },
      "<d>": { source: { kind: "model_token", model: "m", token: null, tokenId: 0 }, force: false },
      "<e>": { source: null, force: false },
    },
  });
});

describe("names what is wrong", () => {
  const recipe = (keys: string) => `merge_method: karcher\nmodels: [{model: a}]\n${keys}\n`;
  const source = (source: string) => recipe(`tokenizer: {tokens: {x: {source: ${source}}}}`);
  const at = "tokenizer.tokens.x.source";
  test.each([
    [recipe("tokenizer_source: 3"), "tokenizer_source: expected union, base or a model folder, got 3"],
    [recipe("tokenizer: union"), 'tokenizer: expected a mapping with source, got "union"'],
    [recipe("tokenizer: {source: [a]}"), "tokenizer.source: expected union, base or a model folder, got a list"],
    [recipe("tokenizer: {token: {}}"), "tokenizer.token: unknown key; did you mean tokens?"],
    [
      recipe("tokenizer: {pad_to_multiple_of: 0}"),
      "tokenizer.pad_to_multiple_of: expected a whole number, 1 or more, got 0",
    ],
    [
      recipe("tokenizer: {tokens: [a]}"),
      "tokenizer.tokens: expected a mapping from tokens to where they come from, got a list",
    ],
    [recipe("tokenizer: {tokens: {x: a}}"), 'tokenizer.tokens.x: expected a mapping with source or force, got "a"'],
    [recipe("tokenizer: {tokens: {x: {force: 1}}}"), "tokenizer.tokens.x.force: expected true or false, got 1"],
    [source("3"), `${at}: expected a model, or a mapping with kind, got 3`],
    [source("{kind: none}"), `${at}.kind: expected zero or model_token, got "none"`],
    [source("{kind: zero, model: a}"), `${at}.model: unknown key; expected one of kind`],
    [source("{kind: model_token, token: t}"), `${at}.model: expected a model of the recipe, got nothing`],
    [source("{kind: model_token, model: a}"), `${at}: expected either token or token_id, got neither`],
    [
      source("{kind: model_token, model: a, token: t, token_id: 1}"),
      `${at}: expected either token or token_id, got both`,
    ],
    [source("{kind: model_token, model: a, token: 5}"), `${at}.token: expected the text of a token, got 5`],
    [
      source("{kind: model_token, model: a, token_id: -1}"),
      `${at}.token_id: expected the number of a token, 0 or more, got -1`,
    ],
  ])("%s", async (recipe, problem) => {
    expect(await mistakesOf(recipe)).toEqual([`r.yml:3: ${problem}`]);
  });
});
