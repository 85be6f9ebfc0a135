import { readFileSync } from "node:fs";
import fc from "fast-check";
import { BITS, type Dtype, deserialize, type NamedTensor, SafetensorsError, serialize } from "safetensors-ts";
import { describe, expect, test } from "vitest";

const bytesOf = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const f32 = (name: string, ...values: number[]): NamedTensor => ({
  name,
  dtype: "F32",
  shape: [values.length],
  data: bytesOf(...values),
});

/** A file with this header, its length in front and zeros behind. */
function file(header: string, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const entry = (shape: string, offsets: string, dtype = "F32") =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;

/** A SafetensorsError with exactly this message. */
const problem = (message: string) => expect.objectContaining({ name: "SafetensorsError", message });

describe("serialize", () => {
  test("writes the reference's bytes: widest dtype first, header padded with spaces to 8", () => {
    const b = f32("b", 1, 2);
    const a: NamedTensor = { name: "a", dtype: "I32", shape: [], data: Uint8Array.of(7, 0, 0, 0) };
    const header =
      '{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"I32","shape":[],"data_offsets":[8,12]}}     ';
    expect(Buffer.from(serialize([a, b])).toString("latin1")).toBe(
      `p\0\0\0\0\0\0\0${header}\0\0\x80?\0\0\0@\x07\0\0\0`,
    );
  });

  test("writes a header of {} for no tensor", () => {
    expect(Buffer.from(serialize([])).toString()).toBe("\x08\0\0\0\0\0\0\0{}      ");
  });

  test("orders names by their UTF-8 bytes and escapes them as the reference does", () => {
    const names = ["z", "\ue000", "😀", 'a"\\/\n\x01\x7f\u2028é', "", "__proto__", "10", "9"];
    const bytes = serialize(
      names.map((name) => f32(name, 0)),
      { format: "pt" },
    );
    const item = (name: string, begin: number) =>
      `"${name}":{"dtype":"F32","shape":[1],"data_offsets":[${begin},${begin + 4}]}`;
    const escaped = ["", "10", "9", "__proto__", 'a\\"\\\\/\\n\\u0001\x7f\u2028é', "z", "\ue000", "😀"];
    const header = `{"__metadata__":{"format":"pt"},${escaped.map((name, i) => item(name, 4 * i)).join(",")}}     `;
    expect(new TextDecoder().decode(bytes.subarray(8, -32))).toBe(header);
    expect(bytes).toHaveLength(544);
  });

  test("orders dtypes as the reference does", () => {
    const order =
      "U64 I64 F64 C64 F32 U32 I32 BF16 F16 U16 I16 F8_E5M2FNUZ F8_E4M3FNUZ F8_E8M0 F8_E4M3 F8_E5M2 I8 U8 F6_E3M2 F6_E2M3 F4 BOOL";
    const tensors = (Object.keys(BITS) as Dtype[]).map((dtype) => ({
      name: dtype,
      dtype,
      shape: [8],
      data: new Uint8Array(BITS[dtype]),
    }));
    expect(deserialize(serialize(tensors)).tensors.map(({ dtype }) => dtype)).toEqual(order.split(" "));
  });

  test("sorts metadata keys", () => {
    expect(new TextDecoder().decode(serialize([], { b: "2", a: "1" }).subarray(8))).toBe(
      '{"__metadata__":{"a":"1","b":"2"}}      ',
    );
  });

  test.each<[NamedTensor[], string]>([
    [[{ ...f32("w", 1, 2, 3), shape: [2, 2] }], 'tensor "w" of dtype F32 and shape [2,2] needs 16 bytes, got 12'],
    [[f32("w", 1), f32("w", 2)], 'two tensors are called "w"'],
    [[f32("__metadata__", 1)], 'no tensor may be called "__metadata__"'],
    [[f32("\ud800", 1)], 'tensor name "\\ud800" is not Unicode'],
    [[{ ...f32("w", 1), dtype: "f32" as Dtype }], 'tensor "w" has unknown dtype "f32"'],
    [[{ ...f32("w", 1), shape: [-1] }], 'tensor "w" has shape [-1], expected whole numbers from 0'],
    [
      [{ name: "w", dtype: "F4", shape: [3], data: new Uint8Array(2) }],
      'tensor "w" of dtype F4 and shape [3] takes 12 bits, expected a multiple of 8',
    ],
  ])("refuses what no reader would take (%#)", (tensors, message) => {
    expect(() => serialize(tensors)).toThrow(problem(message));
  });
});

describe("deserialize", () => {
  test("gives views of the bytes in the order of the file", () => {
    const bytes = serialize([f32("a", 1), f32("b", 2, 3)]);
    const { tensors, metadata } = deserialize(bytes);
    expect(tensors).toEqual([f32("a", 1), f32("b", 2, 3)]);
    expect(tensors[0]!.data.buffer).toBe(bytes.buffer);
    expect(metadata).toEqual({});
  });

  test.each([
    ["the array of dtype, shape and offsets", '{"w":["F32",[2],[0,8]]}'],
    ["dtype as an object", `{"w":{"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]}}`],
    ["metadata null", `{"__metadata__":null,"w":${entry("[2]", "[0,8]")}}`],
    ["an unknown field, 100 deep", `{"w":{"x":${"[".repeat(100)}${"]".repeat(100)},${entry("[2]", "[0,8]").slice(1)}}`],
    ["a name that comes twice: the last counts", `{"w":${entry("[1]", "[0,4]")},"w":${entry("[2]", "[0,8]")}}`],
  ])("reads, as the reference does, %s", (_, header) => {
    expect(deserialize(file(header, 8)).tensors).toEqual([f32("w", 0, 0)]);
  });

  test("keeps a metadata key called __proto__ to itself", () => {
    const { metadata } = deserialize(file('{"__metadata__":{"__proto__":"x"}}', 0));
    expect(Object.entries(metadata)).toEqual([["__proto__", "x"]]);
  });

  test.each([
    [new Uint8Array(3), "is 3 bytes long, expected at least 8"],
    [
      Uint8Array.of(1, 225, 245, 5, 0, 0, 0, 0),
      "header of 100000001 bytes, expected at most 100000000: damaged, or not safetensors",
    ],
    [Uint8Array.of(9, 0, 0, 0, 0, 0, 0, 0, 123), "header of 9 bytes in a file of 9 bytes: the file is truncated"],
    [Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 255), "header is not UTF-8"],
    [file("{", 0), "header is not valid JSON: expected a key in double quotes (byte 9)"],
    [file("[1]", 0), "header should be a JSON object, got [1] (byte 8)"],
    [file('{"__metadata__":{"a":1}}', 0), '"__metadata__" has 1 under "a", expected a string (byte 29)'],
    [file('{"__metadata__":{},"__metadata__":{}}', 0), 'header has "__metadata__" twice (byte 42)'],
    [file('{"w":{"dtype":"F32","shape":[]}}', 4), 'tensor "w": "data_offsets" is missing (byte 13)'],
    [file('{"w":{"dtype":"F32","dtype":"F32","shape":[]}}', 4), 'tensor "w": "dtype" is there twice (byte 36)'],
    [
      file(`{"w":${entry("[-1]", "[0,4]")}}`, 4),
      'tensor "w": shape should hold whole numbers from 0 to 2^64 - 1, got -1 (byte 37)',
    ],
    [file(`{"w":${entry("2", "[0,4]")}}`, 4), 'tensor "w": shape should be a list of whole numbers, got 2 (byte 36)'],
    [
      file(`{"w":${entry("[]", "[0,4,8]")}}`, 4),
      'tensor "w": data_offsets should be [begin, end], got [0,4,8] (byte 54)',
    ],
    [
      file(`{"w":${entry("[2]", "[0,4]")}}`, 4),
      'tensor "w" of dtype F32 and shape [2] needs 8 bytes, its data_offsets span 4',
    ],
    [
      file(`{"w":${entry("[3]", "[0,2]", "F4")}}`, 2),
      'tensor "w" of dtype F4 and shape [3] takes 12 bits, expected a multiple of 8',
    ],
    [
      file(`{"w":${entry("[1]", "[4,8]")}}`, 8),
      'tensor "w" has data_offsets [4,8], expected them to begin at 0: no hole, no overlap',
    ],
    [
      file(`{"a":${entry("[1]", "[0,4]")},"b":${entry("[1]", "[3,7]")}}`, 7),
      'tensor "b" has data_offsets [3,7], expected them to begin at 4: no hole, no overlap',
    ],
    [
      file(`{"w":${entry("[18446744073709551615,2,0]", "[0,0]")}}`, 0),
      'tensor "w" of dtype F32 and shape [18446744073709551615,2,0] overflows 64 bits',
    ],
    [file(`{"w":${entry("[2]", "[0,8]")}}`, 4), "header describes 8 bytes of tensors, found 4: the file is truncated"],
    [
      file(`{"w":${entry("[2]", "[0,8]")}}`, 9),
      "header describes 8 bytes of tensors, found 9: there are bytes after the last tensor",
    ],
  ])("says what is wrong (%#)", (bytes, message) => {
    expect(() => deserialize(bytes)).toThrow(problem(message));
  });

  test("names every dtype it knows when it meets another", () => {
    expect(() => deserialize(file(`{"w":${entry("[]", "[0,4]", "f32")}}`, 4))).toThrow(
      /^tensor "w": unknown dtype "f32", expected one of BOOL, F4, .*, U64 \(byte 22\)$/,
    );
  });

  test.each([
    ["a value", file(`{"w":${entry("[x]", "[0,4]")}}`, 4), { path: undefined, tensor: undefined, offset: 37 }],
    ["a size", file(`{"w":${entry("[2.5]", "[0,4]")}}`, 4), { path: undefined, tensor: "w", offset: 37 }],
    ["a range", file(`{"w":${entry("[2]", "[0,4]")}}`, 4), { path: undefined, tensor: "w", offset: undefined }],
    ["what follows", file("{}", 3), { path: undefined, tensor: undefined, offset: 10 }],
    ["what is missing", file(`{"w":${entry("[1]", "[0,4]")}}`, 3), { tensor: undefined, offset: 65 }],
  ])("gives the tensor and the byte of the file at fault, where there are such: %s", (_, bytes, fault) => {
    expect(() => deserialize(bytes)).toThrow(expect.objectContaining(fault));
  });

  test("shows no more than the beginning of a long value", () => {
    const long = `[${"0,".repeat(1000)}0]`;
    expect(() => deserialize(file(`{"w":${long}}`, 4))).toThrow(/unknown dtype 0, /);
    expect(() => deserialize(file(`{"__metadata__":{"a":${long}}}`, 4))).toThrow(
      problem(`"__metadata__" has ${long.slice(0, 60)}... under "a", expected a string (byte 29)`),
    );
  });

  test("takes 100 000 keys of metadata and no more", () => {
    const header = (count: number) =>
      file(`{"__metadata__":{${Array.from({ length: count }, (_, i) => `"${i}":""`)}}}`, 0);
    expect(Object.keys(deserialize(header(100_000)).metadata)).toHaveLength(100_000);
    expect(() => deserialize(header(100_001))).toThrow(
      problem('"__metadata__" should have at most 100000 keys, got more (byte 1088924)'),
    );
  });

  test("takes 1024 dimensions and no more", () => {
    const shape = (rank: number) => `[${Array(rank).fill(1)}]`;
    expect(deserialize(file(`{"w":${entry(shape(1024), "[0,4]")}}`, 4)).tensors[0]!.shape).toHaveLength(1024);
    expect(() => deserialize(file(`{"w":${entry(shape(1025), "[0,4]")}}`, 4))).toThrow(
      problem('tensor "w": shape should hold at most 1024 numbers, got more (byte 2085)'),
    );
  });
});

describe("serialize and deserialize", () => {
  const tensor = fc
    .record({
      name: fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"),
      dtype: fc.constantFrom(...(Object.keys(BITS) as Dtype[])),
      shape: fc.array(fc.nat(5), { maxLength: 3 }).map((shape) => [...shape, 8]),
    })
    .chain((spec) => {
      const bytes = (spec.shape.reduce((a, b) => a * b, 1) * BITS[spec.dtype]) / 8;
      return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data): NamedTensor => ({ ...spec, data }));
    });
  const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 });
  const metadata = fc.dictionary(fc.string(), fc.string(), { noNullPrototype: true });

  test.each(["gemma2-tiny/model.safetensors", "gemma2-tiny-bf16-sharded/model-00002-of-00004.safetensors"])(
    "%s, written by the reference, comes back byte for byte",
    (name) => {
      const bytes = new Uint8Array(readFileSync(new URL(`../fixtures/models/${name}`, import.meta.url)));
      const { tensors, metadata } = deserialize(bytes);
      expect(Buffer.compare(serialize(tensors, metadata), bytes)).toBe(0);
    },
  );

  test("any tensors come back as they were", () => {
    fc.assert(
      fc.property(tensors, metadata, (given, meta) => {
        const found = deserialize(serialize(given, meta));
        const byName = (list: readonly NamedTensor[]) =>
          new Map(list.map((t) => [t.name, { ...t, data: [...t.data] }]));
        expect(byName(found.tensors)).toEqual(byName(given));
        expect(found.metadata).toEqual(meta);
      }),
    );
  });

  test("the bytes do not depend on the order of insertion", () => {
    fc.assert(
      fc.property(tensors, (given) => {
        expect(serialize([...given].reverse())).toEqual(serialize(given));
      }),
    );
  });

  test("a damaged file is a SafetensorsError or still valid, never another error", () => {
    const good = serialize([f32("a", 1), f32("b", 2, 3)], { format: "pt" });
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, value) => {
        const bytes = good.slice();
        bytes[at] = value;
        try {
          deserialize(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(SafetensorsError);
        }
      }),
    );
  });
});
