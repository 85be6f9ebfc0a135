import { describe, expect, test } from "vitest";
import { EndOfBytes, openGguf, parseGgufHeader } from "../../convert/gguf-header.js";
import { float32Bytes, ggufBytes, ggufFile } from "./gguf-bytes.js";

const METADATA = {
  "general.architecture": "gemma3",
  flag: true,
  count: -7,
  share: 0.5,
  // A byte order mark in front is part of the token.
  tokens: ["\ufeffusing", "▁a", ""],
  nested: [
    [1, 2],
    [3, 4],
  ],
};
const FILE = ggufBytes({
  metadata: METADATA,
  tensors: [
    { name: "norm", shape: [3], data: float32Bytes([1, 2, 3]) },
    { name: "matrix", shape: [2, 1], type: 8, data: float32Bytes([4, 5]) },
  ],
});

describe("a header", () => {
  test("metadata of every kind; shapes rows first; positions from the start of the file", () => {
    const { metadata, tensors } = parseGgufHeader("x.gguf", FILE);
    expect(Object.fromEntries(metadata)).toEqual(METADATA);
    const [first, second] = [FILE.length - 64, FILE.length - 32];
    expect(tensors).toEqual([
      { name: "norm", shape: [3], type: 0, position: first },
      { name: "matrix", shape: [2, 1], type: 8, position: second },
    ]);
    expect(FILE.readFloatLE(first)).toBe(1);
    expect(FILE.readFloatLE(second)).toBe(4);
  });

  test("data begins at a multiple of general.alignment", () => {
    const bytes = ggufBytes({
      metadata: { "general.alignment": 4096 },
      tensors: [{ name: "a", shape: [1], data: float32Bytes([1]) }],
    });
    expect(parseGgufHeader("x.gguf", bytes).tensors[0]!.position).toBe(4096);
  });

  test("cut short anywhere, it asks for more bytes", () => {
    const position = FILE.length - 64;
    // What is missing of the padding is not missed.
    const needed = position - 31;
    for (let length = 1; length < needed; length++) {
      expect(() => parseGgufHeader("x.gguf", FILE.subarray(0, length)), `${length}`).toThrow(EndOfBytes);
    }
  });
});

describe("what is no header is an error that says so", () => {
  const messageOf = async (bytes: Uint8Array): Promise<string> => {
    const path = await ggufFile(bytes);
    const error = await openGguf(path).then(
      () => new Error("opened"),
      (error: Error) => error,
    );
    return error.message.replace(path, "FILE");
  };

  test("another file", async () => {
    expect(await messageOf(Buffer.from("PK\x03\x04zip"))).toBe(
      'FILE: begins with "PK\\u0003\\u0004", expected "GGUF": it is no GGUF file',
    );
    expect(await messageOf(Buffer.alloc(0))).toBe('FILE: begins with "", expected "GGUF": it is no GGUF file');
    await expect(openGguf("/nowhere/model.gguf")).rejects.toThrow("/nowhere/model.gguf: no such file");
  });

  test("another version, and the other byte order", async () => {
    const ofVersion = (version: number) => messageOf(ggufBytes({ metadata: {}, version }));
    expect(await ofVersion(1)).toBe("FILE: is of GGUF version 1, expected 2 or 3 (little endian)");
    expect(await ofVersion(0x03000000)).toBe("FILE: is of GGUF version 50331648, expected 2 or 3 (little endian)");
  });

  test("a file cut short in it", async () => {
    expect(await messageOf(FILE.subarray(0, 100))).toBe(
      "FILE: ends at byte 100, within its header: it is cut short, get it again",
    );
  });

  test("values of unknown types, too many dimensions, an alignment of nothing", async () => {
    const unknown = ggufBytes({ metadata: { a: true } });
    unknown.writeUInt32LE(77, unknown.length - 32 + 1);
    expect(await messageOf(unknown)).toBe("FILE: has a value of unknown type 77 at byte 37: it is damaged");
    const tensor = { name: "a", shape: [1, 1, 1, 1, 1], data: float32Bytes([1]) };
    expect(await messageOf(ggufBytes({ metadata: {}, tensors: [tensor] }))).toBe(
      'FILE: tensor "a" has 5 dimensions, expected at most 4',
    );
    expect(await messageOf(ggufBytes({ metadata: { "general.alignment": 0 } }))).toBe(
      'FILE: "general.alignment" is 0, expected a positive integer',
    );
  });
});
