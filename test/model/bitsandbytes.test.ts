/** Checkpoints of bitsandbytes that are not as they should be, and its 8 bits. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fromFloat32, type NamedTensor } from "safetensors-ts";
import { tf, Variable } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { readModelConfig } from "../../model/config.js";
import { ModelError } from "../../model/errors.js";
import { dequantised, matrixOf, type Quantised } from "../../model/quantised.js";
import { loadWeights, quantisedIn } from "../../model/weights.js";
import { createTrainable } from "../../student/trainable.js";
import { changedCheckpoint, copyOf } from "./folder.js";

const W = "model.layers.1.mlp.down_proj.weight";
const STATE = `${W}.quant_state.bitsandbytes__nf4`;

const changed = (change: (tensors: NamedTensor[]) => NamedTensor[]) =>
  changedCheckpoint("models/gemma3-tiny-nf4", change);
const load = async (dir: string) => loadWeights(dir, await readModelConfig(dir));
const without = (name: string) => (tensors: NamedTensor[]) => tensors.filter((t) => t.name !== name);
const replaced = (name: string, by: (t: NamedTensor) => Partial<NamedTensor>) => (tensors: NamedTensor[]) =>
  tensors.map((t) => (t.name === name ? { ...t, ...by(t) } : t));
const text = (data: string) => ({ shape: [data.length], data: new Uint8Array(Buffer.from(data)) });
const state = (change: object) =>
  replaced(STATE, ({ data }) => text(JSON.stringify({ ...JSON.parse(Buffer.from(data).toString()), ...change })));

describe("4 bits", () => {
  test.each([
    ["no absmax", without(`${W}.absmax`), `tensor "${W}.absmax" is missing, which the 4 bits of "${W}" need`],
    ["no state", without(STATE), `tensor "${STATE}" is missing, which the 4 bits of "${W}" need`],
    ["a state that is no JSON", replaced(STATE, () => text("{nf4")), `tensor "${STATE}" holds "{nf4", expected JSON`],
    ["another shape", state({ shape: [128, 64] }), `tensor "${STATE}": "shape" is [128,64], expected [64,128]`],
    ["blocks of another size", state({ blocksize: 128 }), `tensor "${STATE}": "blocksize" is 128, expected 64`],
    ["no offset", state({ nested_offset: "0" }), `tensor "${STATE}": "nested_offset" is "0", expected a number`],
    [
      "too few codes",
      replaced(W, ({ data }) => ({ shape: [100, 1], data: data.subarray(0, 100) })),
      `tensor "${W}" is U8 [100,1], expected 4096 of U8 for shape [64,128]`,
    ],
    [
      "too few absmaxes",
      replaced(`${W}.absmax`, ({ data }) => ({ shape: [100], data: data.subarray(0, 100) })),
      `tensor "${W}.absmax" is U8 [100], expected 128 of U8 for shape [64,128]`,
    ],
    [
      "another table",
      replaced(`${W}.quant_map`, () => ({ data: fromFloat32(new Float32Array(16), "F32") })),
      `tensor "${W}.quant_map" holds other values than bitsandbytes' table of that name`,
    ],
    [
      "FP4",
      replaced(STATE, () => ({ name: STATE.replace("nf4", "fp4") })),
      `tensor "${STATE.replace("nf4", "fp4")}": expected quant_state.bitsandbytes__nf4 (only NF4 is read)`,
    ],
    [
      "an embedding that is quantised",
      replaced("model.embed_tokens.weight", ({ data }) => ({ dtype: "U8", data: data.subarray(0, 384 * 64) })),
      'tensor "model.embed_tokens.weight" has dtype U8, expected F32, BF16 or F16',
    ],
    [
      "a part of no matrix",
      (tensors: NamedTensor[]) => [
        ...tensors,
        { name: "model.norm.weight.absmax", dtype: "U8" as const, ...text("x") },
      ],
      'tensor "model.norm.weight.absmax" is no part of the model that config.json describes',
    ],
  ])("with %s are an error", async (_, change, problem) => {
    const dir = await changed(change);
    const before = tf.memory().numTensors;
    await expect(load(dir)).rejects.toThrow(new ModelError(dir, problem));
    expect(tf.memory().numTensors).toBe(before);
  });

  test("without double quantisation have an absmax in float32 a block", async () => {
    const dir = await changed((tensors) =>
      replaced(`${W}.absmax`, () => ({ dtype: "F32", data: fromFloat32(new Float32Array(128).fill(2), "F32") }))(
        without(`${W}.nested_absmax`)(without(`${W}.nested_quant_map`)(tensors)),
      ),
    );
    const [double, single] = [await load(join(dir)), matrixOf(await load(dir), W) as Quantised];
    expect(Object.keys(single.parts)).toEqual(["codes", "absmax"]);
    expect(dequantised(single).abs().max().dataSync()[0]).toBe(2);
    tf.dispose(double);
  });
});

const SCB = W.replace("weight", "SCB");
const FORMAT = W.replace("weight", "weight_format");

/** A folder in which W is in 8 bits, with absmaxes of 127. */
const in8bit = (change: (tensors: NamedTensor[]) => NamedTensor[] = (tensors) => tensors): Promise<string> =>
  changed((tensors) => {
    const others = tensors.filter(({ name }) => !name.startsWith(`${W}.`));
    const codes = Int8Array.from({ length: 64 * 128 }, (_, i) => (i % 255) - 127);
    return change([
      ...replaced(W, () => ({ dtype: "I8", shape: [64, 128], data: new Uint8Array(codes.buffer) }))(others),
      { name: SCB, dtype: "F32", shape: [64], data: fromFloat32(new Float32Array(64).fill(127), "F32") },
      { name: FORMAT, dtype: "U8", shape: [], data: Uint8Array.of(0) },
    ]);
  });

test("8 bits: codes times the absmax of their row, by 127", async () => {
  const dir = await in8bit();
  const matrix = matrixOf(await load(dir), W) as Quantised;
  expect([...dequantised(matrix).dataSync().subarray(0, 300)]).toEqual(
    Array.from({ length: 300 }, (_, i) => (i % 255) - 127),
  );
});

test.each([
  ["no absmax", without(SCB), `tensor "${SCB}" is missing, expected F32 [64] for the 8 bits of "${W}"`],
  [
    "an absmax that is no number",
    replaced(SCB, () => ({ data: fromFloat32(new Float32Array(64).fill(Number.NaN), "F32") })),
    `tensor "${SCB}" holds NaN, expected finite numbers`,
  ],
  [
    "another shape",
    replaced(W, ({ data }) => ({ shape: [64, 100], data: data.subarray(0, 6400) })),
    `tensor "${W}" has shape [64,100], expected [64,128] by config.json`,
  ],
  [
    "codes in the order of a kind of GPU",
    replaced(FORMAT, () => ({ data: Uint8Array.of(2) })),
    `tensor "${FORMAT}" is 2, expected 0: codes row after row`,
  ],
])("8 bits with %s are an error", async (_, change, problem) => {
  const dir = await in8bit(change);
  await expect(load(dir)).rejects.toThrow(new ModelError(dir, problem));
});

test("what is in 4 bits is not loaded in 8, nor the other way round", async () => {
  const fixture = await changed((tensors) => tensors);
  const config = await readModelConfig(fixture);
  const first = "model.layers.0.mlp.down_proj.weight";
  await expect(loadWeights(fixture, config, quantisedIn("int8"))).rejects.toThrow(
    `tensor "${first}" is in 4 bits (bitsandbytes): expected load_in_4bit or neither, got load_in_8bit`,
  );
  tf.dispose(await loadWeights(fixture, config, quantisedIn("nf4")));
  const dir = await in8bit();
  await expect(loadWeights(dir, config, quantisedIn("nf4"))).rejects.toThrow(
    `tensor "${W}" is in 8 bits (bitsandbytes): expected load_in_8bit or neither, got load_in_4bit`,
  );
});

test("quantised matrices do not learn", () => {
  const all = { [`${W}.codes`]: new Variable(tf.zeros([1, 1], "int32")) };
  const problem = `"${W}.codes" is of a quantised matrix, which learns nothing: set lora, or other patterns`;
  expect(() => createTrainable(all)).toThrow(new ModelError("trainable", problem));
});

test.each(["gptq", "awq", "fp8"])("%s is an error that names it", async (method) => {
  const dir = await copyOf("models/gemma3-tiny-nf4");
  const path = join(dir, "config.json");
  const config = JSON.parse(await readFile(path, "utf8"));
  await writeFile(path, JSON.stringify({ ...config, quantization_config: { quant_method: method } }));
  const problem = `"quantization_config" is {"quant_method":"${method}"}, expected null or quant_method "bitsandbytes" with load_in_8bit, or load_in_4bit and nf4`;
  await expect(readModelConfig(dir)).rejects.toThrow(new ModelError(path, problem));
});
