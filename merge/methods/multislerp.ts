import { defineMethod } from "../method.js";
import { type Products, weightedNorm } from "../task-vectors.js";
import { divisorOf, toProducts, weightsFromBase } from "./weighted.js";

/**
 * Multi-SLERP (goddard.blog/posts/multislerp-wow-what-a-cool-idea): models, or task vectors where there is a base, are
 * brought to length 1 and averaged with their weights; the average is brought to the weighted mean of their lengths.
 *
 * The method maps the unit vectors to the tangent space at that average by projection, averages there and maps back: as
 * projections of unit vectors about their own weighted mean, those sum to zero, so that nothing is left to map back.
 * It equals SLERP for two vectors of one length and weight.
 *
 * Vectors that cancel have no mean direction: two are averaged on the line, more are an error, unless all are zero.
 * A single model is passed on unchanged. The weights are not divided where their sum is zero.
 */
export const multislerp = defineMethod({
  description: "weighted mean of directions, of the mean length (Multi-SLERP, goddard.blog)",
  base: "optional",
  global: {
    normalize_weights: { type: "boolean", default: true, description: "divide by the sum of the weights" },
    eps: { type: "number", default: 1e-8, min: 0, description: "added to lengths; a shorter mean has no direction" },
  },
  model: {
    weight: { type: "number", description: "share of the model" },
  },
  passes: [
    {
      products: () => "task vectors",
      conclude: (sums, { global, models }) => {
        const weights = models.map(({ weight }) => weight);
        const divisor = global.normalize_weights ? divisorOf(weights) : 1;
        return meanWeights(
          toProducts(sums),
          weights.map((weight) => weight / divisor),
          global.eps,
        );
      },
    },
  ],
  weights: (_settings, [weights], hasBase) => (hasBase ? weightsFromBase(weights!) : weights!),
});

function meanWeights(products: Products, weights: readonly number[], eps: number): readonly number[] {
  if (weights.length === 1) return [1];
  const norms = products.map((row, m) => Math.sqrt(row[m]!));
  const mean = weights.map((weight, m) => weight / (norms[m]! + eps));
  const meanNorm = weightedNorm(products, mean);
  if (!(meanNorm >= eps && meanNorm > 0)) {
    if (weights.length === 2 || norms.every((norm) => norm === 0)) return weights;
    const shown = weights.map((weight) => Number(weight.toPrecision(3))).join(", ");
    throw new RangeError(
      `multislerp: ${weights.length} vectors with weights ${shown} cancel out, so they have no mean direction: expected other weights`,
    );
  }
  const length = norms.reduce((sum, norm, m) => sum + weights[m]! * norm, 0);
  return mean.map((share) => (share * length) / meanNorm);
}
