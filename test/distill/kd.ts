/** fixtures/kd: divergences and their gradients by the student's logits, made with torch in float64. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openSafetensors } from "safetensors-ts";
import { tf } from "tfjs-jit";
import { expect } from "vitest";

/** A loss: the mean over the tokens of the mask. `top_k` null is the whole vocabulary. */
export type KdCase = {
  readonly name: string;
  readonly cap: number | null;
  readonly temperature: number;
  readonly beta: number;
  readonly top_k: number | null;
  readonly tail: boolean | null;
  readonly loss: number;
};

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/kd/${name}`, import.meta.url));

export const kdCases: KdCase[] = JSON.parse(readFileSync(fixture("kd.json"), "utf8"));

/** Tokens and vocabulary of the cases. */
export const [KD_TOKENS, KD_VOCABULARY] = [21, 53];

/** By name: logits before the soft cap (student, teacher), mask, and gradients where the temperature is not 0.7. */
export async function readKd(): Promise<Readonly<Record<string, Float32Array>>> {
  const file = await openSafetensors(fixture("kd.safetensors"));
  const tensors: Record<string, Float32Array> = {};
  for (const { name } of file.tensors) tensors[name] = new Float32Array((await file.read(name)).slice().buffer);
  await file.close();
  return tensors;
}

export const kdLogits = (values: Float32Array): tf.Tensor2D => tf.tensor2d(values, [KD_TOKENS, KD_VOCABULARY]);

export const numbers = (x: tf.Tensor): number[] => Array.from(x.dataSync());

/** Every value within `tolerance` of the expected one; NaN never is. */
export function expectClose(got: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(got.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(got[i]! - expected[i]!));
  expect(worst).toBeLessThanOrEqual(tolerance);
}

/** Within `tolerance` of the largest expected value. */
export const expectRelativelyClose = (got: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void =>
  expectClose(got, expected, tolerance * Array.from(expected).reduce((most, x) => Math.max(most, Math.abs(x)), 0));
