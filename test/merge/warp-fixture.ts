// Golden values of EMA, SLERP and LITI (float64), made with an independent implementation; see warp.json.
import { readFileSync } from "node:fs";
import { deserialize, type NamedTensor } from "safetensors-ts";

interface Warp {
  readonly mu: number;
  readonly eta: number;
  /** Radians under `GRANULARITY.RUNS.GROUP`, one for each run after the first; null where a task vector is zero. */
  readonly omega: Readonly<Record<string, readonly (number | null)[]>>;
  /** Weights of M orthonormal task vectors, under M. */
  readonly orthonormal: Readonly<Record<string, readonly number[]>>;
}

const read = (name: string) => readFileSync(new URL(`../fixtures/warp/${name}`, import.meta.url));

export const warp = JSON.parse(read("warp.json").toString()) as Warp;
const { tensors } = deserialize(read("warp.safetensors"));

/** The tensors under a prefix such as "run0." or "slerp.layer.2.", without it. */
export const tensorsUnder = (prefix: string): NamedTensor[] =>
  tensors
    .filter(({ name }) => name.startsWith(prefix))
    .map((tensor) => ({ ...tensor, name: tensor.name.slice(prefix.length) }));

/** Largest absolute difference; infinite where lengths differ or something is not a number. */
export function maxDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  const largest = a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);
  return Number.isNaN(largest) ? Number.POSITIVE_INFINITY : largest;
}
