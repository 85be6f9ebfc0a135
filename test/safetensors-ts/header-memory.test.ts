// Headers of 20 MB, built to take memory and time: what reading them adds to the memory of this process, which runs nothing else.
import { parseHeader, SafetensorsError } from "safetensors-ts";
import { describe, expect, test } from "vitest";

const SIZE = 20_000_000;
/** What the garbage collector leaves lying while it is not pressed. */
const SLACK = 64e6;

/** `begin`, then `piece` as often as it fits, then `end`, then spaces. */
function header(begin: string, piece: string, end: string): Uint8Array {
  const bytes = Buffer.alloc(SIZE, " ");
  bytes.write(begin);
  const pieces = Math.floor((SIZE - begin.length - end.length) / piece.length);
  bytes.fill(piece, begin.length, begin.length + pieces * piece.length);
  bytes.write(end, begin.length + pieces * piece.length);
  return bytes;
}

function tensors(count: number): Uint8Array {
  const entry = (_: unknown, i: number) =>
    `"model.layers.${i}.weight":{"dtype":"F32","shape":[1],"data_offsets":[${4 * i},${4 * i + 4}]}`;
  return Buffer.from(`{${Array.from({ length: count }, entry).join(",")}}`.padEnd(SIZE));
}

/** Bytes by which the largest memory of the process grew, and seconds. */
function cost(work: () => void): { bytes: number; seconds: number } {
  const before = process.memoryUsage.rss();
  const begin = performance.now();
  work();
  const bytes = process.resourceUsage().maxRSS * 1024 - before;
  return { bytes, seconds: (performance.now() - begin) / 1000 };
}

describe("a hostile header", () => {
  const entry = `"dtype":"F32","shape":[1],"data_offsets":[0,4]`;

  test.each<[string, number, Uint8Array]>([
    ["an unknown field of many arrays", 0, header('{"w":{"x":[[]', ",[]", `],${entry}}}`)],
    ["an unknown field of many numbers", 0, header('{"w":{"x":[0', ",0", `],${entry}}}`)],
    ["an unknown field of a long string", 0, header('{"w":{"x":"', "\\u00e9", `",${entry}}}`)],
    ["the same name again and again", 0, header("{", `"w":{${entry}},`, `"w":{${entry}}}`)],
    ["one long name", 2, header('{"', "x", `":{${entry}}}`)],
  ])("takes memory in proportion to what is kept of it: %s", (_, times, json) => {
    const { bytes, seconds } = cost(() => {
      expect(parseHeader(json, 8 + json.length + 4).tensors).toHaveLength(1);
    });
    expect(bytes).toBeLessThan(times * SIZE + SLACK);
    expect(seconds).toBeLessThan(30);
  });

  test("stops at a shape of millions of dimensions", () => {
    const json = header('{"w":{"dtype":"F32","shape":[1', ",1", '],"data_offsets":[0,4]}}');
    const { bytes } = cost(() => expect(() => parseHeader(json, 8 + json.length + 4)).toThrow(SafetensorsError));
    expect(bytes).toBeLessThan(SLACK);
  });

  test("with metadata of one long value takes twice its size", () => {
    const json = header('{"__metadata__":{"a":"', "x", '"}}');
    const { bytes } = cost(() => parseHeader(json, 8 + json.length));
    expect(bytes).toBeLessThan(2 * SIZE + SLACK);
  });

  test("with 200 000 tensors takes six times its size", () => {
    const json = tensors(200_000);
    const { bytes, seconds } = cost(() => {
      expect(parseHeader(json, 8 + json.length + 800_000).tensors).toHaveLength(200_000);
    });
    expect(bytes).toBeLessThan(6 * SIZE + SLACK);
    expect(seconds).toBeLessThan(30);
  });
});
