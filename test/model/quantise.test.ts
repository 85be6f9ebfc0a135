/** Codes and values of quantised matrices: those of bitsandbytes (test/peers/bnb_nf4.py), and some by hand. */
import { openCheckpoint } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { DYNAMIC_MAP, dequantiseNf4, NF4, quantiseInt8, quantiseNf4 } from "../../model/quantise.js";
import { fixture } from "./golden.js";

/** What bitsandbytes makes of a matrix. */
async function peer(name: string) {
  const checkpoint = await openCheckpoint(fixture("quantised"));
  const [bytes, floats] = [
    (part: string) => checkpoint.read(`${name}.${part}`).then((data) => Uint8Array.from(data)),
    (part: string) => checkpoint.readFloat32(`${name}.${part}`),
  ];
  const made = {
    values: await floats("values"),
    codes: await bytes("codes"),
    absmax: await bytes("absmax"),
    nestedAbsmax: await floats("nested_absmax"),
    offset: (await floats("offset"))[0]!,
    dequantised: await floats("dequantised"),
  };
  await checkpoint.close();
  return made;
}

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

describe("NF4", () => {
  test.each(["normal", "steps"])(
    "%s: the codes are those of bitsandbytes, and so is each block's absmax",
    async (name) => {
      const { values, codes, absmax, nestedAbsmax, offset } = await peer(name);
      const made = quantiseNf4(values);
      expect(made.codes).toEqual(codes);
      // Its CPU kernel looks absmaxes up in a table of steps, so that one which is about as near may be the next.
      expect(largestDifference(made.absmax, absmax)).toBeLessThanOrEqual(1);
      expect(made.absmax.filter((code, i) => code !== absmax[i]).length).toBeLessThanOrEqual(absmax.length / 100);
      // Torch sums up in float32.
      expect(largestDifference(made.nestedAbsmax, nestedAbsmax)).toBeLessThan(1e-7);
      expect(Math.abs(made.offset - offset)).toBeLessThan(1e-7);
    },
  );

  test.each(["normal", "steps"])("%s: its codes are the values of bitsandbytes, bit by bit", async (name) => {
    const { dequantised, ...codes } = await peer(name);
    expect(dequantiseNf4(codes)).toEqual(dequantised);
  });

  test("a block of the 16 values times a number is exact, the first of two values in the high half", () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => 2 * NF4[i % 16]!);
    const made = quantiseNf4(values);
    expect([...made.codes.subarray(0, 8)]).toEqual([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    // One block: its absmax is the mean, what is left is 0.
    expect(made).toMatchObject({ offset: 2, nestedAbsmax: Float32Array.of(0) });
    expect(DYNAMIC_MAP[made.absmax[0]!]).toBe(0);
    expect(dequantiseNf4(made)).toEqual(values);
  });

  test("values halfway between two codes take the lower one, zeros stay zeros", () => {
    const values = new Float32Array(64);
    values[0] = 1;
    values[1] = Math.fround(NF4[8]!) / 2;
    const { codes } = quantiseNf4(values);
    expect([...codes.subarray(0, 2)]).toEqual([0xf7, 0x77]);
    expect(dequantiseNf4(quantiseNf4(new Float32Array(128)))).toEqual(new Float32Array(128));
  });

  test("the error of normal values is at most half the widest step", async () => {
    const { values } = await peer("normal");
    const back = dequantiseNf4(quantiseNf4(values));
    const widest = (NF4[1]! - NF4[0]!) / 2;
    for (let block = 0; block < values.length; block += 64) {
      const [own, made] = [values.subarray(block, block + 64), back.subarray(block, block + 64)];
      const most = Math.max(...own.map(Math.abs));
      // And what double quantisation changes of the absmax.
      expect(largestDifference(own, made)).toBeLessThan(widest * most + 0.001);
    }
  });
});

test("the dynamic map has 256 ascending values, the middles of parts of decades", () => {
  expect([DYNAMIC_MAP.length, DYNAMIC_MAP[127], DYNAMIC_MAP[255]]).toEqual([256, 0, 1]);
  expect(DYNAMIC_MAP.every((value, i) => i === 0 || value > DYNAMIC_MAP[i - 1]!)).toBe(true);
  // 1e-6 of the middle of 0.1..1, 1e-5 of the middles of its halves, and at the top the middle of the last of 64 parts.
  expect([...DYNAMIC_MAP.subarray(128, 131)].map((x) => x.toExponential(5))).toEqual([
    "5.50000e-7",
    "3.25000e-6",
    "7.75000e-6",
  ]);
  expect(DYNAMIC_MAP[254]).toBeCloseTo(1 - 0.9 / 128, 6);
});

describe("int8", () => {
  test("a row's largest value is 127, halves go to the even code", () => {
    const { codes, scale } = quantiseInt8(Float32Array.of(127, 0.5, 1.5, -2.5, 0, 0, 0, 0, -2, 1, 0.5, 0.25), 3);
    expect([...codes]).toEqual([127, 0, 2, -2, 0, 0, 0, 0, -127, 64, 32, 16]);
    expect(scale).toEqual(Float32Array.of(1, 0, 2 / 127));
  });
});
