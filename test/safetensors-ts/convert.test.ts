import fc from "fast-check";
import { type Dtype, type FloatDtype, fromFloat32, toFloat32 } from "safetensors-ts";
import { describe, expect, test } from "vitest";

const bytes = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const codes = (values: number[], dtype: "F16" | "BF16") => {
  const data = fromFloat32(Float32Array.from(values), dtype);
  return [...new Uint16Array(data.buffer, data.byteOffset, values.length)];
};
const decode = (dtype: Dtype, ...patterns: number[]) => [
  ...toFloat32(bytes(dtype.startsWith("F8") ? Uint8Array.from(patterns) : Uint16Array.from(patterns)), dtype),
];

describe("BF16", () => {
  test("is the upper half of a float32", () => {
    expect(decode("BF16", 0x3f80, 0xc000, 0x0001, 0x8000, 0x7f80)).toEqual([
      1,
      -2,
      2 ** -133,
      -0,
      Number.POSITIVE_INFINITY,
    ]);
  });

  test("rounds to nearest, ties to even", () => {
    const ulp = 2 ** -7; // of values from 1 to 2
    expect(codes([1 + 0.49 * ulp, 1 + 0.5 * ulp, 1 + 0.51 * ulp, 1 + 1.5 * ulp, -1 - 1.5 * ulp], "BF16")).toEqual([
      0x3f80, 0x3f80, 0x3f81, 0x3f82, 0xbf82,
    ]);
  });

  test("overflows to infinity and keeps NaN a NaN, also one whose bits are all low", () => {
    const lowNaN = new Float32Array(Uint32Array.of(0x7f800001).buffer);
    expect(codes([3.4028234e38], "BF16")).toEqual([0x7f80]);
    expect(toFloat32(fromFloat32(lowNaN, "BF16"), "BF16")[0]).toBeNaN();
  });
});

describe("F16", () => {
  test("reads normal, subnormal and special values", () => {
    expect(decode("F16", 0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff, 0x8000, 0xfc00)).toEqual([
      1,
      -2,
      65504,
      2 ** -24,
      -1023 * 2 ** -24,
      -0,
      Number.NEGATIVE_INFINITY,
    ]);
    expect(decode("F16", 0x7e00)[0]).toBeNaN();
  });

  test("rounds to nearest, ties to even, below the normal numbers too", () => {
    const ulp = 2 ** -10; // of values from 1 to 2
    const tiny = 2 ** -24;
    expect(codes([1 + 0.5 * ulp, 1 + 1.5 * ulp, 1 + 0.51 * ulp], "F16")).toEqual([0x3c00, 0x3c02, 0x3c01]);
    expect(codes([0.5 * tiny, 0.51 * tiny, 1.5 * tiny, 2.5 * tiny, -3.5 * tiny, 1023.5 * tiny], "F16")).toEqual([
      0, 1, 2, 2, 0x8004, 0x0400,
    ]);
    expect(codes([65519, 65520, -1e9, Number.NaN], "F16")).toEqual([0x7bff, 0x7c00, 0xfc00, 0x7e00]);
  });
});

describe("8-bit floats", () => {
  test.each<[Dtype, number[], number[]]>([
    ["F8_E4M3", [0x38, 0x7e, 0x01, 0xb8, 0x7f], [1, 448, 2 ** -9, -1, Number.NaN]],
    [
      "F8_E5M2",
      [0x3c, 0x7b, 0x01, 0x7c, 0xfc, 0x7d],
      [1, 57344, 2 ** -16, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN],
    ],
    ["F8_E8M0", [127, 0, 254, 255], [1, 2 ** -127, 2 ** 127, Number.NaN]],
    ["F8_E4M3FNUZ", [0x40, 0x7f, 0x01, 0x80], [1, 240, 2 ** -10, Number.NaN]],
    ["F8_E5M2FNUZ", [0x40, 0x7f, 0x01, 0x80], [1, 57344, 2 ** -17, Number.NaN]],
  ])("%s", (dtype, patterns, values) => {
    expect(decode(dtype, ...patterns)).toEqual(values);
  });
});

describe("toFloat32", () => {
  test("reads every integer type", () => {
    expect([...toFloat32(Uint8Array.of(0, 1), "BOOL")]).toEqual([0, 1]);
    expect([...toFloat32(Uint8Array.of(255), "U8")]).toEqual([255]);
    expect([...toFloat32(Uint8Array.of(255), "I8")]).toEqual([-1]);
    expect([...toFloat32(bytes(Int16Array.of(-2)), "I16")]).toEqual([-2]);
    expect([...toFloat32(bytes(Uint16Array.of(65535)), "U16")]).toEqual([65535]);
    expect([...toFloat32(bytes(Int32Array.of(-3)), "I32")]).toEqual([-3]);
    expect([...toFloat32(bytes(Uint32Array.of(2 ** 31)), "U32")]).toEqual([2 ** 31]);
    expect([...toFloat32(bytes(BigInt64Array.of(-(2n ** 40n))), "I64")]).toEqual([-(2 ** 40)]);
    expect([...toFloat32(bytes(BigUint64Array.of(2n ** 63n)), "U64")]).toEqual([2 ** 63]);
  });

  test("reads F64 to the nearest float32", () => {
    expect([...toFloat32(bytes(Float64Array.of(0.1)), "F64")]).toEqual([Math.fround(0.1)]);
  });

  test("reads data at an odd address", () => {
    const odd = new Uint8Array(9);
    odd.set(bytes(Float32Array.of(1, 2)), 1);
    expect([...toFloat32(odd.subarray(1), "F32")]).toEqual([1, 2]);
  });

  test("is a view of aligned F32 data", () => {
    const data = bytes(Float32Array.of(1));
    expect(toFloat32(data, "F32").buffer).toBe(data.buffer);
  });

  test("refuses a part of an element", () => {
    expect(() => toFloat32(new Uint8Array(3), "BF16")).toThrow("3 bytes are no whole number of BF16 elements");
  });
});

describe("toFloat32 and fromFloat32", () => {
  test.each(["F16", "BF16"] as const)("every %s that is a number survives the way to float32 and back", (dtype) => {
    const all = Uint16Array.from({ length: 65536 }, (_, code) => code);
    const values = toFloat32(bytes(all), dtype);
    const back = fromFloat32(values, dtype);
    const found = new Uint16Array(back.buffer, back.byteOffset, all.length);
    expect(all.filter((code) => found[code] !== code && !Number.isNaN(values[code]))).toHaveLength(0);
  });

  test.each(["F16", "BF16"] as const)("no %s is nearer to a float32 than the one it is rounded to", (dtype) => {
    const neighbours = (code: number) => [code - 1, code + 1].filter((other) => other >> 15 === code >> 15);
    fc.assert(
      fc.property(fc.float({ noNaN: true, min: -65000, max: 65000 }), (x) => {
        const [code] = codes([x], dtype);
        const distance = (c: number) => Math.abs(decode(dtype, c)[0]! - x);
        for (const other of neighbours(code!)) {
          expect(distance(other)).toBeGreaterThanOrEqual(distance(code!));
        }
      }),
    );
  });

  test.each<FloatDtype>(["F32", "F64"])("%s keeps every bit of a float32", (dtype) => {
    const values = Float32Array.of(0.1, -0, 1e-45, Number.POSITIVE_INFINITY);
    expect(toFloat32(fromFloat32(values, dtype), dtype)).toEqual(values);
  });
});
