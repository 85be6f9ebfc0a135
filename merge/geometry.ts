// The geometry of task vectors, which WARP looks at (arXiv 2406.16768, section 4 and appendix): lengths, angles, signs.

import { type Granularity, groupOf } from "./groups.js";
import type { Part } from "./method.js";
import type { Plan } from "./plan.js";
import type { Stored } from "./run-plan.js";
import { slerpWeights } from "./slerp.js";
import { addProducts, noProducts, type Products, weightedNorm } from "./task-vectors.js";

/** The geometry of one group of tensors. Norms and angles are of task vectors (weights minus base). */
export interface GroupStatistics {
  readonly group: string;
  /** Number of tensors in it. */
  readonly tensors: number;
  /** Length of each model's task vector. */
  readonly norms: readonly number[];
  /** Radians, from 0 to pi, between the SLERP of the first m models and model m + 1 (m from 1); null where one is zero. */
  readonly angles: readonly (number | null)[];
  /** Cosines of `angles`. */
  readonly cosines: readonly (number | null)[];
  /** Length of the merged task vector, before eta. */
  readonly mergedNorm: number;
  /** Length of the base. */
  readonly baseNorm: number;
  /** pairwise[a][b] is the cosine between the task vectors of models a and b; null where one is zero. */
  readonly pairwise: readonly (readonly (number | null)[])[];
  /** Length of each task vector, as a share of the first one's; null where that is zero. */
  readonly normRatios: readonly (number | null)[];
  /** Share of elements, from 0 to 1, where the task vectors of two models have opposite signs. */
  readonly signConflicts: number;
}

/** How a method weighs the task vectors of a group. */
export type Weigh = (products: Products) => readonly number[];

/** Sums over a part: products of the models' task vectors, square of the base, sign conflicts, elements. */
export function measureGeometry({ base, models, length }: Part): Float64Array {
  const products = noProducts(models.length);
  addProducts(products, base, models);
  const square = noProducts(1);
  addProducts(square, null, [base!]);
  return Float64Array.of(...products.flat(), square[0]![0]!, countConflicts(base!, models), length);
}

function countConflicts(base: Float32Array, models: readonly Float32Array[]): number {
  let count = 0;
  if (models.length === 2) {
    const [a, b] = models as [Float32Array, Float32Array];
    for (let i = 0; i < base.length; i++) if ((a[i]! - base[i]!) * (b[i]! - base[i]!) < 0) count++;
    return count;
  }
  for (let i = 0; i < base.length; i++) {
    let isUp = false;
    let isDown = false;
    for (let m = 0; m < models.length; m++) {
      const change = models[m]![i]! - base[i]!;
      if (change > 0) isUp = true;
      else if (change < 0) isDown = true;
    }
    if (isUp && isDown) count++;
  }
  return count;
}

/** The geometry of every group, by name, layer 10 after layer 9. Tensors that were not measured are left out. */
export function describeGeometry(
  plan: Plan,
  stored: readonly Stored[],
  granularity: Granularity,
  weigh: Weigh,
): GroupStatistics[] {
  const sums = new Map<string, { tensors: number; total: number[] }>();
  const measured = stored.flatMap(({ tensors, geometry }) =>
    tensors.map((tensor, i) => ({ tensor, sum: geometry[i] })),
  );
  for (const { tensor, sum } of measured.sort((a, b) => a.tensor - b.tensor)) {
    if (!sum) continue;
    const group = groupOf(plan.tensors[tensor]!.name, granularity);
    const before = sums.get(group);
    const total = before ? before.total.map((value, i) => value + sum[i]!) : [...sum];
    sums.set(group, { tensors: (before?.tensors ?? 0) + 1, total });
  }
  const byName = [...sums].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  return byName.map(([group, { tensors, total }]) => ({ group, tensors, ...describeGroup(total, weigh) }));
}

function describeGroup(total: readonly number[], weigh: Weigh): Omit<GroupStatistics, "group" | "tensors"> {
  const models = Math.sqrt(total.length - 3);
  const products = Array.from({ length: models }, (_, a) => total.slice(a * models, (a + 1) * models));
  const [square, conflicts, elements] = total.slice(-3) as [number, number, number];
  const norms = products.map((row, m) => Math.sqrt(row[m]!));
  const { angles } = slerpWeights(products);
  return {
    norms,
    angles,
    cosines: angles.map((angle) => (angle === null ? null : Math.cos(angle))),
    mergedNorm: weightedNorm(products, weigh(products)),
    baseNorm: Math.sqrt(square),
    pairwise: products.map((row, a) => row.map((dot, b) => cosine(dot, norms[a]! * norms[b]!))),
    normRatios: norms.map((norm) => (norms[0]! > 0 ? norm / norms[0]! : null)),
    signConflicts: conflicts / elements,
  };
}

const cosine = (dot: number, lengths: number) => (lengths > 0 ? Math.min(1, Math.max(-1, dot / lengths)) : null);
