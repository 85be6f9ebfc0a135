import { defineMethod } from "../method.js";
import { type Products, weightedNorm } from "../task-vectors.js";
import { toProducts } from "./weighted.js";

/** Unit vectors whose angle has a smaller sine are the same or opposite. Opposite ones have no shortest arc between them. */
const MIN_SINE = 1e-6;

/**
 * Karcher mean of the models' directions on the sphere, times the mean of their lengths (arXiv 2603.04972): from the
 * normalised average on, the mean moves by the average of log_mean(unit_m) along the sphere until it moves less than `tol`:
 *
 *     log_mean(u) = O / sin O (u - cos O mean),    O = angle between mean and u.
 *
 * The mean stays in the span of the models, so it is kept as coefficients, and their Gram matrix is all there is to know.
 * Models that are not longer than `tol` have no direction; they count in the mean length. Where the average vanishes, it
 * starts at the first. What is opposite to the mean is left out: any direction would lead there.
 */
export const karcher = defineMethod({
  description: "Karcher mean of the models' directions, of their mean length (arXiv 2603.04972)",
  base: "none",
  global: {
    max_iter: { type: "integer", default: 10, min: 0, description: "how often the mean is moved at most" },
    tol: { type: "number", default: 1e-5, min: 0, description: "angle below which it has arrived, in radians" },
  },
  model: {},
  passes: [
    {
      products: () => "sources",
      conclude: (sums, { global }) => karcherWeights(toProducts(sums), global.max_iter, global.tol),
    },
  ],
  weights: (_settings, [weights]) => weights!,
});

function karcherWeights(products: Products, maxIterations: number, tolerance: number): readonly number[] {
  const size = products.length;
  if (size === 1) return [1];
  const norms = products.map((row, m) => Math.sqrt(row[m]!));
  const length = norms.reduce((sum, norm) => sum + norm / size, 0);
  const members = norms.flatMap((norm, m) => (norm > tolerance ? [m] : []));
  if (members.length === 0) return norms.map(() => 0);

  const units = members.map((a) => members.map((b) => products[a]![b]! / (norms[a]! * norms[b]!)));
  const mean = meanDirection(units, maxIterations, tolerance);
  const weights = norms.map(() => 0);
  for (const [k, m] of members.entries()) weights[m] = (mean[k]! * length) / norms[m]!;
  return weights;
}

/** Coefficients of the mean of unit vectors whose cosines are given. */
function meanDirection(cosines: Products, maxIterations: number, tolerance: number): number[] {
  const share = 1 / cosines.length;
  const average = cosines.map(() => share);
  const averageNorm = weightedNorm(cosines, average);
  let mean =
    averageNorm < tolerance
      ? cosines.map((_, k) => (k === 0 ? 1 : 0))
      : average.map((coefficient) => coefficient / averageNorm);

  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const tangent = cosines.map(() => 0);
    for (const [k, row] of cosines.entries()) {
      const cosine = row.reduce((sum, value, j) => sum + value * mean[j]!, 0);
      const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
      if (angle < tolerance || Math.sin(angle) < MIN_SINE) continue;
      const scale = (share * angle) / Math.sin(angle);
      tangent[k]! += scale;
      for (const [j, coefficient] of mean.entries()) tangent[j]! -= scale * cosine * coefficient;
    }
    const step = weightedNorm(cosines, tangent);
    if (step < tolerance) break;
    const moved = mean.map((c, k) => Math.cos(step) * c + (Math.sin(step) / step) * tangent[k]!);
    const norm = weightedNorm(cosines, moved);
    mean = moved.map((coefficient) => coefficient / norm);
  }
  return mean;
}
