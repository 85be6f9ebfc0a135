/** Loading weights: what is accepted, and every way in which a checkpoint can be wrong. */
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fromFloat32, type NamedTensor, openCheckpoint, SafetensorsError, toFloat32 } from "safetensors-ts";
import { isBfloat16, tf } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { readModelConfig } from "../../model/config.js";
import { ModelError } from "../../model/errors.js";
import { parameterShapes } from "../../model/shapes.js";
import { loadWeights } from "../../model/weights.js";
import { changedCheckpoint, copyOf } from "./folder.js";
import { fixture } from "./golden.js";

const changed = (change: (tensors: NamedTensor[]) => NamedTensor[]) => changedCheckpoint("models/gemma2-tiny", change);
const load = async (dir: string) => loadWeights(dir, await readModelConfig(dir));

const NORM = "model.norm.weight";
const EMBEDDING = "model.embed_tokens.weight";
const replaced = (name: string, by: Partial<NamedTensor>) => (tensors: NamedTensor[]) =>
  tensors.map((t) => (t.name === name ? { ...t, ...by } : t));
const ones = (length: number) => fromFloat32(new Float32Array(length).fill(1), "F32");

describe("loadWeights", () => {
  test.each(["gemma2-tiny", "gemma2-tiny-bf16-sharded"])("reads %s as float32 tensors", async (name) => {
    const dir = fixture(`models/${name}`);
    const weights = await load(dir);
    const shapes = Object.fromEntries(Object.entries(weights).map(([key, tensor]) => [key, tensor.shape]));
    expect(shapes).toEqual(parameterShapes(await readModelConfig(dir)));
    expect(weights[NORM]!.dtype).toBe("float32");
    const checkpoint = await openCheckpoint(dir);
    expect(await weights[NORM]!.data()).toEqual(await checkpoint.readFloat32(NORM));
    await checkpoint.close();
    tf.dispose(weights);
  });

  test("keeps bfloat16 as it is stored where that is asked, and rounds float32 where bfloat16 is", async () => {
    const dir = fixture("models/gemma2-tiny-bf16-sharded");
    const config = await readModelConfig(dir);
    const [exact, stored] = [await load(dir), await loadWeights(dir, config, () => "stored")];
    expect(Object.values(stored).every(isBfloat16)).toBe(true);
    for (const [name, tensor] of Object.entries(stored)) expect(tensor.dataSync()).toEqual(exact[name]!.dataSync());

    const tiny = fixture("models/gemma2-tiny");
    const mixed = await loadWeights(tiny, config, (name) => (name === NORM ? "bfloat16" : "stored"));
    expect([isBfloat16(mixed[NORM]!), isBfloat16(mixed[EMBEDDING]!)]).toEqual([true, false]);
    const norm = (await load(tiny))[NORM]!;
    expect(mixed[NORM]!.dataSync()).toEqual(toFloat32(fromFloat32(norm.dataSync() as Float32Array, "BF16"), "BF16"));
    tf.dispose([exact, stored, mixed, norm] as unknown as tf.TensorContainer);
  });

  test("names what is not finite in bfloat16 too", async () => {
    const bits = new Uint16Array(64).fill(0x3f80);
    bits[3] = 0xff80;
    const dir = await changed(replaced(NORM, { dtype: "BF16", data: new Uint8Array(bits.buffer) }));
    await expect(loadWeights(dir, await readModelConfig(dir), () => "stored")).rejects.toThrow(
      `${dir}: tensor "${NORM}" is -Infinity at index 3, expected finite numbers`,
    );
  });

  test("takes a head that repeats the embedding, and leaves it out", async () => {
    const dir = await changed((tensors) => {
      const embedding = tensors.find((t) => t.name === EMBEDDING)!;
      return [...tensors, { ...embedding, name: "lm_head.weight" }];
    });
    expect(Object.keys(await load(dir))).not.toContain("lm_head.weight");
  });

  test.each<[string, (tensors: NamedTensor[]) => NamedTensor[], string]>([
    [
      "a missing tensor",
      (tensors) => tensors.filter((t) => t.name !== NORM),
      `tensor "${NORM}" is missing, expected shape [64] by config.json`,
    ],
    [
      "an unexpected tensor",
      (tensors) => [...tensors, { name: "score.weight", dtype: "F32", shape: [1], data: ones(1) }],
      'tensor "score.weight" is no part of the model that config.json describes',
    ],
    [
      "another shape",
      replaced(NORM, { shape: [32], data: ones(32) }),
      `tensor "${NORM}" has shape [32], expected [64] by config.json`,
    ],
    [
      "a transposed shape",
      replaced(EMBEDDING, { shape: [64, 384] }),
      `tensor "${EMBEDDING}" has shape [64,384], expected [384,64] by config.json`,
    ],
    ["integers", replaced(NORM, { dtype: "I32" }), `tensor "${NORM}" has dtype I32, expected F32, BF16 or F16`],
    [
      "NaN",
      replaced(NORM, { data: fromFloat32(new Float32Array(64).fill(Number.NaN, 5, 6), "F32") }),
      `tensor "${NORM}" is NaN at index 5, expected finite numbers`,
    ],
    [
      "infinity",
      replaced(NORM, { data: fromFloat32(new Float32Array(64).fill(-Infinity, 63), "F32") }),
      `tensor "${NORM}" is -Infinity at index 63, expected finite numbers`,
    ],
    [
      "an untied head",
      (tensors) => [...tensors, { name: "lm_head.weight", dtype: "F32", shape: [384, 64], data: ones(384 * 64) }],
      `tensor "lm_head.weight" differs from "${EMBEDDING}", expected the same values (a tied head)`,
    ],
  ])("refuses %s, and keeps no tensor", async (_, change, message) => {
    const dir = await changed(change);
    const before = tf.memory().numTensors;
    await expect(load(dir)).rejects.toThrow(new ModelError(dir, message));
    expect(tf.memory().numTensors).toBe(before);
  });

  test("says which shard is missing", async () => {
    const dir = await copyOf("models/gemma2-tiny-bf16-sharded");
    await rm(join(dir, "model-00004-of-00004.safetensors"));
    await expect(load(dir)).rejects.toThrow(/model-00004-of-00004\.safetensors is missing/);
  });

  test("passes on what the reader says of a truncated file and of a folder without weights", async () => {
    const dir = await copyOf("models/gemma2-tiny");
    const file = join(dir, "model.safetensors");
    await truncate(file, (await readFile(file)).length - 1);
    await expect(load(dir)).rejects.toThrow(SafetensorsError);
    await rm(file);
    await expect(load(dir)).rejects.toThrow(`${dir}: holds neither model.safetensors nor model.safetensors.index.json`);
    await writeFile(file, "");
    await expect(load(dir)).rejects.toThrow(SafetensorsError);
  });
});
