import { readFile } from "node:fs/promises";
import { deserialize } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { FORMATS, formatOf } from "../../convert/formats.js";
import { fixture } from "../model/golden.js";

const formatCalled = (name: string) => [...FORMATS.values()].find((format) => format.name === name)!;

function dequantized(name: string, bytes: readonly number[]): number[] {
  const { blockBytes, blockSize, dequantize } = formatCalled(name);
  const values = new Float32Array((bytes.length / blockBytes) * blockSize);
  dequantize(Uint8Array.from(bytes), values);
  return [...values];
}

/** Little-endian float16. */
const [HALF, ONE, TWO] = [
  [0x00, 0x38],
  [0x00, 0x3c],
  [0x00, 0x40],
] as const;
const zeros = (count: number): number[] => Array<number>(count).fill(0);
const times = (count: number, value: number): number[] => Array<number>(count).fill(value);

describe("blocks that can be worked out by hand", () => {
  test("Q8_0: scale times signed bytes", () => {
    const values = dequantized("Q8_0", [...HALF, 1, 0xff, 127, 0x80, ...zeros(28)]);
    expect(values).toEqual([0.5, -0.5, 63.5, -64, ...zeros(28)]);
  });

  test("Q4_0: low nibbles are the first 16 weights, 8 is zero", () => {
    const values = dequantized("Q4_0", [...HALF, 0x9f, ...times(15, 0x88)]);
    expect(values).toEqual([3.5, ...zeros(15), 0.5, ...zeros(15)]);
  });

  test("Q4_1: scale times nibble plus minimum", () => {
    const values = dequantized("Q4_1", [...HALF, ...TWO, 0x9f, ...zeros(15)]);
    expect(values).toEqual([9.5, ...times(15, 2), 6.5, ...times(15, 2)]);
  });

  test("Q5_0: the fifth bit of weight i is bit i, 16 is zero", () => {
    // Bits 0 and 31 are set: weight 0 is 16 + 15, weight 31 is 16 + 9, the others are their nibbles.
    const values = dequantized("Q5_0", [...HALF, 0x01, 0, 0, 0x80, 0x0f, ...zeros(14), 0x90]);
    expect(values).toEqual([7.5, ...times(30, -8), 4.5]);
  });

  test("Q5_1: the same with a minimum in place of -16", () => {
    const values = dequantized("Q5_1", [...HALF, ...TWO, 0x01, 0, 0, 0x80, 0x0f, ...zeros(14), 0x90]);
    expect(values).toEqual([17.5, ...times(30, 2), 14.5]);
  });

  test("Q4_K: scales of six bits, the upper two of the last four blocks in the first bytes", () => {
    // Block 0: scale 1, minimum 2. Block 4: scale 0b010011 = 19, minimum 0b100101 = 37. The others have neither.
    const scales = [0b01_000001, 0, 0, 0, 0b10_000010, 0, 0, 0, 0b0101_0011, 0, 0, 0];
    const values = dequantized("Q4_K", [...HALF, ...ONE, ...scales, ...times(128, 0x31)]);
    const block0 = times(32, 0.5 * 1 * 1 - 2);
    const block4 = times(32, 0.5 * 19 * 1 - 37);
    expect(values).toEqual([...block0, ...zeros(96), ...block4, ...zeros(96)]);
  });

  test("Q5_K: bit b of the fifth bits is block b's", () => {
    const scales = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const fifths = [0b01, 0b10, ...zeros(30)];
    const values = dequantized("Q5_K", [...ONE, ...ONE, ...scales, ...fifths, ...times(128, 0x21)]);
    expect(values.slice(0, 3)).toEqual([17, 1, 1]);
    expect(values.slice(32, 35)).toEqual([2, 18, 2]);
  });

  test("Q6_K: runs of 32, block scales of 16 weights, 32 is zero", () => {
    const lower = [0x5a, ...zeros(127)];
    const upper = [0b10_00_00_01, ...zeros(63)];
    const values = dequantized("Q6_K", [...lower, ...upper, ...[1, 2, 0, 0, 0xff], ...zeros(11), ...HALF]);
    // Run 0: 0x1a, run 2 (high half): 0x05 and the block scale -1; run 3's upper bits 0b10 have the block scale 0.
    expect(values.slice(0, 2)).toEqual([0.5 * (26 - 32), 0.5 * -32]);
    expect(values[16]).toBe(0.5 * 2 * -32);
    expect(values.slice(64, 66)).toEqual([-0.5 * (5 - 32), -0.5 * -32]);
  });
});

test("random blocks of every format give gguf-py's values, bit by bit", async () => {
  const golden = new Map(
    deserialize(await readFile(fixture("convert/blocks.safetensors"))).tensors.map(({ name, data }) => [name, data]),
  );
  const names = [...FORMATS.values()].map(({ name }) => name).filter((name) => name.startsWith("Q"));
  expect(names).toHaveLength(8);
  for (const name of names) {
    const bytes = golden.get(`${name}.blocks`)!;
    const { blockBytes, blockSize, dequantize } = formatCalled(name);
    const values = new Float32Array((bytes.length / blockBytes) * blockSize);
    dequantize(bytes, values);
    expect(Buffer.from(values.buffer).equals(golden.get(`${name}.values`)!), name).toBe(true);
  }
});

test("a type that is not read is an error that names it and those that are", () => {
  const tensor = { name: "blk.0.attn_q.weight", shape: [2, 256], position: 0 };
  expect(() => formatOf("x.gguf", { ...tensor, type: 11 })).toThrow(
    'x.gguf: tensor "blk.0.attn_q.weight" is Q3_K, expected one of ' +
      "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16",
  );
  expect(() => formatOf("x.gguf", { ...tensor, type: 99 })).toThrow(
    'x.gguf: tensor "blk.0.attn_q.weight" is of type 99, expected one of ',
  );
  expect(() => formatOf("x.gguf", { ...tensor, type: 14, shape: [256, 64] })).toThrow(
    'x.gguf: tensor "blk.0.attn_q.weight" has rows of 64, expected a multiple of 256 for Q6_K',
  );
});
