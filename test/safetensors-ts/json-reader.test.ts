import { describe, expect, test } from "vitest";
import { JsonReader } from "../../safetensors-ts/src/json-reader.js";

/** What the reader tells of a text: objects as lists of pairs, so that order and duplicates show; whole numbers are exact. */
type Told = string | number | bigint | undefined | Told[] | { readonly members: [string, Told][] };

function readerOf(text: string): JsonReader {
  return new JsonReader(new TextEncoder().encode(text), (problem, at) => {
    throw new SyntaxError(`${problem} at byte ${at}`);
  });
}

function read(text: string): Told {
  const reader = readerOf(text);
  const value = (): Told => {
    const kind = reader.next();
    if (kind === "string") return reader.string();
    if (kind === "other") return reader.whole();
    if (kind === "array") {
      const elements: Told[] = [];
      reader.array(() => elements.push(value()));
      return elements;
    }
    const members: [string, Told][] = [];
    reader.object((key) => members.push([key, value()]));
    return { members };
  };
  const told = value();
  reader.end();
  return told;
}

/** Passes over the whole text. */
function skip(text: string): void {
  const reader = readerOf(text);
  reader.skip();
  reader.end();
}

describe("JsonReader", () => {
  test("keeps the order of keys, numeric ones and duplicates included", () => {
    expect(read('{"b":1,"10":2,"9":3,"b":4}')).toEqual({
      members: [
        ["b", 1],
        ["10", 2],
        ["9", 3],
        ["b", 4],
      ],
    });
  });

  test("reads whole numbers from 0 to 2^64 - 1 exactly, and no other numbers", () => {
    expect(read("[0,9007199254740991,9007199254740992,18446744073709551615]")).toEqual([
      0,
      9007199254740991,
      9007199254740992n,
      18446744073709551615n,
    ]);
    expect(read("[18446744073709551616,100000000000000000000,-2,-0,2.0,2e0,null,[],{}]")).toEqual([
      ...Array(7).fill(undefined),
      [],
      { members: [] },
    ]);
    expect(readerOf('"1"').whole()).toBeUndefined();
  });

  test("reads every escape, pairs of surrogates included", () => {
    expect(read(String.raw`"\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\uD83D\ude00é"`)).toBe('"\\/\b\f\n\r\tAé€😀é');
    expect(read('"\ufeffa"')).toBe("\ufeffa");
    expect(read(`"${"long ".repeat(20)}"`)).toBe("long ".repeat(20));
  });

  test("reads literals and white space", () => {
    expect(read(" \t\r\n[ null , true,false, [] , {} ] ")).toEqual([
      undefined,
      undefined,
      undefined,
      [],
      { members: [] },
    ]);
  });

  test.each([
    ["", "unexpected end of the header at byte 0"],
    ["{", "expected a key in double quotes at byte 1"],
    ['{"a"', 'expected ":" at byte 4'],
    ['{"a":1', 'expected "," or "}" at byte 6'],
    ['{"a":1,}', "expected a key in double quotes at byte 7"],
    ["[1,]", "expected a value at byte 3"],
    ["[1 2]", 'expected "," or "]" at byte 3'],
    ["{}x", "unexpected text after the end of the JSON at byte 2"],
    ["[01]", 'expected "," or "]" at byte 2'],
    ["[1.]", "expected a digit at byte 3"],
    ["[1e]", "expected a digit at byte 3"],
    ["[.5]", "expected a value at byte 1"],
    ["[-]", "expected a digit at byte 2"],
    ["[NaN]", "expected a value at byte 1"],
    ["[nul]", "expected a value at byte 1"],
    ["1e999", "number 1e999 out of range at byte 5"],
    [`1${"0".repeat(400)}`, `number 1${"0".repeat(59)}... out of range at byte 401`],
    ['"a', "unexpected end of the header at byte 2"],
    ['"\n"', "control character in a string at byte 1"],
    [String.raw`"\x"`, "invalid escape at byte 1"],
    [String.raw`"\u12g4"`, "expected four hexadecimal digits at byte 3"],
    [String.raw`"\ud800"`, "lone surrogate in an escape at byte 1"],
    [String.raw`"\ude00\ud83d"`, "lone surrogate in an escape at byte 1"],
    [String.raw`"\ud83dA"`, "lone surrogate in an escape at byte 1"],
    [String.raw`"\ud83d\u0041"`, "lone surrogate in an escape at byte 1"],
    ["\ufeff{}", "expected a value at byte 0"],
    ["\v{}", "expected a value at byte 0"],
  ])("refuses %j: %s", (text, message) => {
    expect(() => read(text)).toThrow(new SyntaxError(message));
    expect(() => skip(text)).toThrow(new SyntaxError(message));
  });

  test("passes over a number of many digits that is finite", () => {
    expect(() => skip(`[${"0.".padEnd(1000, "0")}1, 1${"0".repeat(300)}e-200]`)).not.toThrow();
  });

  test("goes 127 levels deep and no further", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    expect(() => skip(nested(127))).not.toThrow();
    expect(() => skip(nested(128))).toThrow("nested deeper than 127 at byte 127");
    expect(() => skip(`[${nested(126)},${nested(126)}]`)).not.toThrow();
  });
});
