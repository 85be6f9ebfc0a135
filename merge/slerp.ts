// Stage 2 of WARP: spherical interpolation of task vectors (arXiv 2406.16768, section 3.2 and appendix B.3).
import { addProducts, addTaskVectors, noProducts, type Products, weightedNorm } from "./task-vectors.js";

/** What each run's task vector is multiplied by, and the angles between which SLERP went. */
export interface SlerpWeights {
  readonly weights: readonly number[];
  /** Radians between the fold of the first m runs and run m + 1, for m from 1; null where one of the two is zero. */
  readonly angles: readonly (number | null)[];
}

/** Below this sine, task vectors have no arc between them that float64 could tell: they are averaged on the line. */
const MIN_SINE = 1e-6;

/**
 * Weights of the fold slerp_m = slerp(slerp_(m-1), run_m; lambda = 1/m), where
 *
 *     slerp(d1, d2; lambda) = sin((1 - lambda) O) / sin O d1 + sin(lambda O) / sin O d2,    O = angle between d1 and d2.
 *
 * Task vectors are not normalised. Those that are zero, parallel or opposite are averaged: (1 - lambda) d1 + lambda d2.
 * The fold depends on the order: of orthonormal task vectors the later ones weigh less, and the result has norm 1.
 */
export function slerpWeights(products: Products): SlerpWeights {
  let weights: number[] = products.length > 0 ? [1] : [];
  const angles: (number | null)[] = [];
  for (let m = 1; m < products.length; m++) {
    const dot = weights.reduce((sum, weight, k) => sum + weight * products[k]![m]!, 0);
    const lengths = weightedNorm(products, weights) * Math.sqrt(products[m]![m]!);
    const angle = lengths > 0 ? Math.acos(Math.min(1, Math.max(-1, dot / lengths))) : null;
    const [before, last] = arcWeights(angle, 1 / (m + 1));
    weights = [...weights.map((weight) => weight * before), last];
    angles.push(angle);
  }
  return { weights, angles };
}

/** What two vectors `angle` radians apart are multiplied by, `lambda` of the way along their arc (on the line: null). */
export function arcWeights(angle: number | null, lambda: number): [number, number] {
  const sine = angle === null ? 0 : Math.sin(angle);
  if (angle === null || sine < MIN_SINE) return [1 - lambda, lambda];
  return [Math.sin((1 - lambda) * angle) / sine, Math.sin(lambda * angle) / sine];
}

/** The plain average of task vectors, which shortens them: what SLERP is compared with. */
export const lerpWeights = (runs: number): number[] => new Array<number>(runs).fill(1 / runs);

/** SLERP of one or more runs as one group: init + the folded task vectors. Summed in float64, rounded to float32 once. */
export function slerp(
  init: Float32Array,
  runs: readonly Float32Array[],
): { merged: Float32Array; angles: readonly (number | null)[] } {
  const products = noProducts(runs.length);
  addProducts(products, init, runs);
  const { weights, angles } = slerpWeights(products);
  return { merged: addTaskVectors(init, runs, weights), angles };
}
