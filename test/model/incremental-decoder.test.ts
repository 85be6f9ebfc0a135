/** Text of ids that come one by one. The fixture's vocabulary is digits, letters and bytes: all else is written in bytes. */
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { incrementalDecoder, loadTokenizer, type Tokenizer } from "../../model/tokenizer.js";
import { fixture } from "./golden.js";

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = (await loadTokenizer(fixture("arithmetic/teacher")))!;
});

/** What each id completes, the last call's rest at the end. */
async function pieces(ids: readonly number[]): Promise<string[]> {
  const decode = incrementalDecoder(tokenizer);
  const texts: string[] = [];
  for (const id of ids) texts.push(await decode([id]));
  return [...texts, await decode([], { last: true })];
}

describe("incrementalDecoder", () => {
  test("gives a character once its last byte is there", async () => {
    const ids = await tokenizer.encode("7 世🙂!");
    expect(ids.map((id) => id < 263 ? (id - 7).toString(16) : "text")).toEqual([
      "text", "text", "e4", "b8", "96", "f0", "9f", "99", "82", "text",
    ]); // biome-ignore format: one line
    expect(await pieces(ids)).toEqual(["7", " ", "", "", "世", "", "", "", "🙂", "!", ""]);
  });

  test("takes several ids at a time, and none", async () => {
    const ids = await tokenizer.encode("世界");
    const decode = incrementalDecoder(tokenizer);
    expect(await decode(ids.slice(0, 4))).toBe("");
    expect(await decode([])).toBe("");
    expect(await decode(ids.slice(4))).toBe("世界");
    expect(await decode([])).toBe("");
  });

  test("leaves special tokens out", async () => {
    expect(await pieces([2, 287, 6])).toEqual(["", "7", "", ""]);
  });

  test("gives a character that stays cut off as U+FFFD, one a byte, before what follows or at the end", async () => {
    const [first, second, third] = await tokenizer.encode("世");
    const seven = (await tokenizer.encode("7"))[0]!;
    expect(await pieces([first!, second!, seven])).toEqual(["", "", "\uFFFD\uFFFD7", ""]);
    expect(await pieces([first!, second!])).toEqual(["", "", "\uFFFD\uFFFD"]);
    expect(await pieces([third!])).toEqual(["", "\uFFFD"]);
  });

  test("gives all of any text", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "binary" }), async (text) => {
        expect((await pieces(await tokenizer.encode(text))).join("")).toBe(text);
      }),
      { seed: 1, numRuns: 100 },
    );
  });
});
