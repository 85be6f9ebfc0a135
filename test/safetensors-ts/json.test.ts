import { describe, expect, test } from "vitest";
import { parseJson } from "../../safetensors-ts/src/json.js";

describe("parseJson", () => {
  test("keeps the order of keys, numeric ones and duplicates included", () => {
    expect(parseJson('{"b":1,"10":2,"9":3,"b":4}')).toEqual({
      entries: [
        ["b", 1n],
        ["10", 2n],
        ["9", 3n],
        ["b", 4n],
      ],
    });
  });

  test("keeps whole numbers up to 2^64 - 1 exact and makes every other number a float", () => {
    expect(parseJson("[9007199254740993,18446744073709551615,18446744073709551616]")).toEqual([
      9007199254740993n,
      18446744073709551615n,
      2 ** 64,
    ]);
    expect(parseJson("[-2,-0,2.0,2e0]")).toEqual([-2, -0, 2, 2]);
  });

  test("reads every escape, pairs of surrogates included", () => {
    expect(parseJson(String.raw`"\"\\\/\b\f\n\r\t\u0041\uD83D\ude00é"`)).toBe('"\\/\b\f\n\r\tA😀é');
  });

  test("reads literals and white space", () => {
    expect(parseJson(" \t\r\n[ null , true,false, [] , {} ] ")).toEqual([null, true, false, [], { entries: [] }]);
  });

  test.each([
    ["", "unexpected end of the header at character 0"],
    ["{", "expected a key in double quotes at character 1"],
    ['{"a"', 'expected ":" at character 4'],
    ['{"a":1', 'expected "," or "}" at character 6'],
    ['{"a":1,}', "expected a key in double quotes at character 7"],
    ["[1,]", "expected a value at character 3"],
    ["[1 2]", 'expected "," or "]" at character 3'],
    ["{}x", "unexpected text after the end of the JSON at character 2"],
    ["[01]", 'expected "," or "]" at character 2'],
    ["[1.]", 'expected "," or "]" at character 2'],
    ["[.5]", "expected a value at character 1"],
    ["[-]", "expected a digit at character 1"],
    ["[NaN]", "expected a value at character 1"],
    ["1e999", "number 1e999 out of range at character 5"],
    ['"a', "unexpected end of the header at character 2"],
    ['"\n"', "control character in a string at character 1"],
    [String.raw`"\x"`, "invalid escape at character 1"],
    [String.raw`"\u12g4"`, "expected four hexadecimal digits at character 3"],
    [String.raw`"\ud800"`, "lone surrogate in an escape at character 7"],
    [String.raw`"\ude00\ud83d"`, "lone surrogate in an escape at character 7"],
    [String.raw`"\ud83dA"`, "lone surrogate in an escape at character 7"],
    [String.raw`"\ud83d\u0041"`, "lone surrogate in an escape at character 13"],
    ["\ufeff{}", "expected a value at character 0"],
    ["\v{}", "expected a value at character 0"],
  ])("refuses %j: %s", (text, message) => {
    expect(() => parseJson(text)).toThrow(new SyntaxError(message));
  });

  test("goes 127 levels deep and no further", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    expect(() => parseJson(nested(127))).not.toThrow();
    expect(() => parseJson(nested(128))).toThrow("nested deeper than 127");
  });
});
