// Conversions against what PyTorch casts (golden/casts.json, written by test/peers/safetensors_casts.py), and into given memory.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { BITS, type Dtype, fromFloat32, fromFloat64, toFloat32, toFloat64 } from "safetensors-ts";
import { describe, expect, test } from "vitest";

interface Integers {
  readonly values: string[];
  readonly float32: number[];
  readonly float64: number[];
}
interface Golden {
  readonly few: string[];
  readonly encoded: Record<string, string>;
  readonly encodedSweep: Record<string, string>;
  readonly decoded: Record<string, string>;
  readonly decodedF4: number[];
  readonly float16FromFloat64: string;
  readonly I64: Integers;
  readonly U64: Integers;
}

const golden = JSON.parse(readFileSync(new URL("golden/casts.json", import.meta.url), "utf8")) as Golden;
const bytes = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const sha = (array: ArrayBufferView) => createHash("sha256").update(bytes(array)).digest("hex");
/** A SafetensorsError with exactly this message. */
const problem = (message: string) => expect.objectContaining({ name: "SafetensorsError", message });

const LOWER = [0x0000, 0x0001, 0x0fff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff];
/** Every upper half of a float32 with each of LOWER below it, without the NaNs. */
const swept = new Float32Array(
  Uint32Array.from({ length: LOWER.length << 16 }, (_, i) => (((i & 0xffff) << 16) | LOWER[i >> 16]!) >>> 0).buffer,
).filter((x) => !Number.isNaN(x));
const few = Float32Array.from(golden.few, (text) => Number(text.replace("inf", "Infinity")));
const isNumber = (_: number, i: number) => !Number.isNaN(few[i]!);
/** The codes of F4, one a byte, as PyTorch has them before it packs them. */
const unpacked = (pairs: Uint8Array) =>
  Uint8Array.from({ length: pairs.length * 2 }, (_, i) => (pairs[i >> 1]! >> (4 * (i & 1))) & 15);
const even = (values: Float32Array) => values.subarray(0, values.length & ~1);

const narrow = ["F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"] as const;

describe.each(narrow)("%s as PyTorch casts it", (dtype) => {
  const width = BITS[dtype] / 8;

  test("from a few float32", () => {
    const codes = (data: Uint8Array) =>
      width === 1 ? data : new Uint16Array(data.buffer, data.byteOffset, few.length);
    const expected = codes(new Uint8Array(Buffer.from(golden.encoded[dtype]!, "hex")));
    expect([...codes(fromFloat32(few, dtype))].filter(isNumber)).toEqual([...expected].filter(isNumber));
  });

  test("from 650 000 float32, and from the same as float64", () => {
    expect(sha(fromFloat32(swept, dtype))).toBe(golden.encodedSweep[dtype]);
    expect(sha(fromFloat64(Float64Array.from(swept), dtype))).toBe(golden.encodedSweep[dtype]);
  });

  test("to float32 and float64, every code", () => {
    const all =
      width === 1 ? Uint8Array.from({ length: 256 }, (_, i) => i) : Uint16Array.from({ length: 65536 }, (_, i) => i);
    const zeroNaN = (x: number) => (Number.isNaN(x) ? 0 : x);
    expect(sha(toFloat32(bytes(all), dtype).map(zeroNaN))).toBe(golden.decoded[dtype]);
    expect(sha(Float32Array.from(toFloat64(bytes(all), dtype), zeroNaN))).toBe(golden.decoded[dtype]);
  });

  test("every code that is a number comes back from float32 and from float64", () => {
    const all =
      width === 1 ? Uint8Array.from({ length: 256 }, (_, i) => i) : Uint16Array.from({ length: 65536 }, (_, i) => i);
    const values = toFloat32(bytes(all), dtype);
    const finite = all.filter((_, i) => !Number.isNaN(values[i]!));
    expect(fromFloat32(toFloat32(bytes(finite), dtype), dtype)).toEqual(bytes(finite));
    expect(fromFloat64(toFloat64(bytes(finite), dtype), dtype)).toEqual(bytes(finite));
  });

  test("float64 is rounded to nearest, once", () => {
    // E8M0 has powers of two only, and its halves go up: PyTorch's rule, not the nearest.
    if (dtype === "F8_E8M0") return;
    const value = (x: number) => toFloat64(fromFloat64(Float64Array.of(x), dtype), dtype)[0]!;
    const codeOf = (x: number) => fromFloat64(Float64Array.of(x), dtype);
    fc.assert(
      fc.property(fc.double({ noNaN: true, min: -200, max: 200 }), (x) => {
        const found = Math.abs(value(x) - x);
        const code = codeOf(x);
        for (const step of [1, -1]) {
          const other = code.slice();
          const next = width === 1 ? other : new Uint16Array(other.buffer);
          next[0]! += step;
          const neighbour = toFloat64(other, dtype)[0]!;
          if (Number.isFinite(neighbour)) expect(Math.abs(neighbour - x)).toBeGreaterThanOrEqual(found);
        }
      }),
    );
  });
});

describe("F4", () => {
  test("is PyTorch's float4_e2m1, the first element in the low bits", () => {
    expect([
      ...toFloat32(
        Uint8Array.from({ length: 8 }, (_, i) => (2 * i) | ((2 * i + 1) << 4)),
        "F4",
      ),
    ]).toEqual(golden.decodedF4);
    const finite = few.filter(Number.isFinite);
    expect(Buffer.from(unpacked(fromFloat32(finite, "F4"))).toString("hex")).toBe(golden.encoded.F4);
    expect(sha(unpacked(fromFloat32(even(swept.filter(Number.isFinite)), "F4")))).toBe(golden.encodedSweep.F4);
  });

  test("takes infinity for the largest and has no NaN", () => {
    expect([...toFloat64(fromFloat64(Float64Array.of(1 / 0, -1 / 0), "F4"), "F4")]).toEqual([6, -6]);
    expect(() => fromFloat32(Float32Array.of(0, Number.NaN), "F4")).toThrow(
      new RangeError("NaN cannot be written as F4, which has none"),
    );
  });

  test("takes an even number of values", () => {
    expect(() => fromFloat32(new Float32Array(3), "F4")).toThrow(
      problem("3 values of F4 are no whole number of bytes, expected an even number"),
    );
  });
});

describe("float64", () => {
  test("is rounded once, not by way of float32", () => {
    expect(
      sha(
        fromFloat64(
          Float64Array.from({ length: 3 * swept.length }, (_, i) => {
            const step = [0, 2 ** -40, -(2 ** -40)][Math.floor(i / swept.length)]!;
            return swept[i % swept.length]! * (1 + step);
          }),
          "F16",
        ),
      ),
    ).toBe(golden.float16FromFloat64);
    // A hair above the middle of two bfloat16: in float32 it is the middle, and goes to the even one, 1.
    expect([...toFloat32(fromFloat64(Float64Array.of(1 + 2 ** -8 + 2 ** -40), "BF16"), "BF16")]).toEqual([1 + 2 ** -7]);
  });

  test("becomes float32 to nearest, and is itself a view", () => {
    const values = Float64Array.of(0.1, 1e300, -0);
    expect([...toFloat32(fromFloat64(values, "F32"), "F32")]).toEqual([Math.fround(0.1), Number.POSITIVE_INFINITY, -0]);
    expect(fromFloat64(values, "F64").buffer).toBe(values.buffer);
    expect(toFloat64(bytes(values), "F64").buffer).toBe(values.buffer);
  });

  test.each(["I64", "U64"] as const)("%s to float32 and float64 as PyTorch and NumPy round", (dtype) => {
    const type = dtype === "I64" ? BigInt64Array : BigUint64Array;
    const data = bytes(type.from(golden[dtype].values.map(BigInt)));
    expect([...toFloat32(data, dtype)]).toEqual(golden[dtype].float32.map((x) => x));
    expect([...toFloat64(data, dtype)]).toEqual(golden[dtype].float64);
  });

  test("holds every 32-bit integer", () => {
    expect([...toFloat64(bytes(Int32Array.of(-(2 ** 31), 2 ** 31 - 1)), "I32")]).toEqual([-(2 ** 31), 2 ** 31 - 1]);
    expect([...toFloat64(bytes(Uint32Array.of(2 ** 32 - 1)), "U32")]).toEqual([2 ** 32 - 1]);
    expect([...toFloat32(bytes(Uint32Array.of(2 ** 24 + 1)), "U32")]).toEqual([2 ** 24]);
  });
});

describe("NaN", () => {
  const nan = (pattern: number) => new Float32Array(Uint32Array.of(pattern).buffer);
  const float32 = (data: Uint8Array, dtype: Dtype) => bytes(toFloat32(data, dtype));

  test.each<[Dtype, number, number]>([
    ["F16", 0xfe00, 0x7e00],
    ["BF16", 0xffc1, 0x7fc0],
    ["F8_E5M2", 0xff, 0x7f],
    ["F8_E4M3", 0xff, 0x7f],
    ["F8_E5M2FNUZ", 0x80, 0x80],
    ["F8_E4M3FNUZ", 0x80, 0x80],
    ["F8_E8M0", 0xff, 0xff],
  ])("is a quiet NaN of %s, with its sign where that has one", (dtype, negative, lowest) => {
    const code = (pattern: number) =>
      [...fromFloat32(nan(pattern), dtype)].reduceRight((high, byte) => high * 256 + byte);
    expect(code(0xffc12345)).toBe(negative);
    expect(code(0x7f800001)).toBe(lowest);
    expect(toFloat64(fromFloat64(Float64Array.of(Number.NaN), dtype), dtype)[0]).toBeNaN();
  });

  test("keeps sign and payload from F16, BF16 and F8_E5M2", () => {
    expect(float32(bytes(Uint16Array.of(0xfc01)), "F16")).toEqual(bytes(Uint32Array.of(0xff802000)));
    expect(float32(bytes(Uint16Array.of(0xff81)), "BF16")).toEqual(bytes(Uint32Array.of(0xff810000)));
    expect(float32(Uint8Array.of(0xfd), "F8_E5M2")).toEqual(bytes(Uint32Array.of(0xffa00000)));
  });
});

describe("what has no conversion", () => {
  const packing = "how 6-bit elements are packed into bytes is not agreed on";
  test.each<[Dtype, string]>([
    ["C64", "C64 cannot be read as float32: its elements are complex"],
    ["F6_E2M3", `F6_E2M3 cannot be read as float32: ${packing}`],
    ["F6_E3M2", `F6_E3M2 cannot be read as float32: ${packing}`],
  ])("%s is not read", (dtype, message) => {
    expect(() => toFloat32(new Uint8Array(24), dtype)).toThrow(problem(message));
    expect(() => toFloat64(new Uint8Array(24), dtype)).toThrow(problem(message.replace("float32", "float64")));
  });

  const floats = "F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, F4";
  test.each<[Dtype, string]>([
    ["C64", `float32 cannot be written as C64, expected one of ${floats}`],
    ["I32", `float32 cannot be written as I32, expected one of ${floats}`],
    ["BOOL", `float32 cannot be written as BOOL, expected one of ${floats}`],
    ["F6_E3M2", `float32 cannot be written as F6_E3M2: ${packing}`],
  ])("%s is not written", (dtype, message) => {
    expect(() => fromFloat32(new Float32Array(8), dtype)).toThrow(problem(message));
    expect(() => fromFloat64(new Float64Array(8), dtype)).toThrow(problem(message.replace("float32", "float64")));
  });
});

describe("into", () => {
  const dtypes = (Object.keys(BITS) as Dtype[]).filter((dtype) => !/^F6|C64/.test(dtype));
  test.each(dtypes)("%s is written where it is told, also at an odd address, and nowhere else", (dtype) => {
    const data = Uint8Array.from({ length: 16 }, (_, i) => i * 17);
    const [single, double] = [toFloat32(data, dtype), toFloat64(data, dtype)];
    const [into32, into64] = [new Float32Array(single.length + 2), new Float64Array(double.length + 2)];
    const part32 = into32.subarray(1, -1);
    expect(toFloat32(data, dtype, part32)).toBe(part32);
    expect(bytes(part32)).toEqual(bytes(single));
    expect([into32[0], into32.at(-1)]).toEqual([0, 0]);
    toFloat64(data, dtype, into64.subarray(1, -1));
    expect([...into64]).toEqual([0, ...double, 0]);

    if (/^[IUB]/.test(dtype) && dtype !== "BF16") return;
    const finite = single.map((x) => (Number.isNaN(x) ? 1 : x));
    const expected = fromFloat32(finite, dtype);
    const into = new Uint8Array(expected.length + 2);
    const part = into.subarray(1, -1);
    expect(fromFloat32(finite, dtype, part)).toBe(part);
    expect([...into]).toEqual([0, ...expected, 0]);
    expect([...fromFloat64(Float64Array.from(finite), dtype, part)]).toEqual([...expected]);
    expect([into[0], into.at(-1)]).toEqual([0, 0]);
  });

  test("has the right length", () => {
    const message = '"into" has length 3, expected 4';
    expect(() => toFloat32(new Uint8Array(8), "F16", new Float32Array(3))).toThrow(new RangeError(message));
    expect(() => toFloat64(new Uint8Array(8), "F16", new Float64Array(3))).toThrow(new RangeError(message));
    expect(() => fromFloat32(new Float32Array(2), "BF16", new Uint8Array(3))).toThrow(new RangeError(message));
    expect(() => fromFloat64(new Float64Array(2), "BF16", new Uint8Array(3))).toThrow(new RangeError(message));
  });
});
