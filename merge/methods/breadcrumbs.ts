import type { ParameterSpecs, Values } from "../method.js";
import { byMagnitude } from "./magnitude.js";
import { globalParameters, modelParameters, sparseTaskArithmetic } from "./sparse-task-arithmetic.js";

const model = {
  ...modelParameters,
  gamma: {
    type: "number",
    default: 0.01,
    min: 0,
    max: 1,
    description: "share of the largest elements that is dropped",
  },
} as const satisfies ParameterSpecs;

/**
 * Of n elements floor(density n) are kept: those whose magnitudes come after the floor(gamma n) largest, or after fewer where
 * density and gamma together are more than 1. A gamma of 0 drops no large ones.
 */
const betweenOutliersAndNoise = byMagnitude<Values<typeof model>>((elements, { density, gamma }) => {
  const kept = Math.floor(density * elements);
  const first = Math.min(Math.floor(gamma * elements), elements - kept);
  return { first, last: first + kept };
});

/** Model Breadcrumbs (arXiv 2312.06795): task arithmetic without the outliers and the noise of each task vector. */
export const breadcrumbs = sparseTaskArithmetic({
  description: "task arithmetic without the largest and the smallest changes (Breadcrumbs, arXiv 2312.06795)",
  global: globalParameters({ normalize: false, rescale: false }),
  model,
  sparsifier: betweenOutliersAndNoise,
  hasConsensus: false,
});

/** As `breadcrumbs`, with the election of signs of TIES. */
export const breadcrumbsTies = sparseTaskArithmetic({
  description: "breadcrumbs with the election of signs of TIES (arXiv 2312.06795, 2306.01708)",
  global: globalParameters({ normalize: false, rescale: false }),
  model,
  sparsifier: betweenOutliersAndNoise,
  hasConsensus: true,
});
