import type { Values } from "../method.js";
import { byMagnitude } from "./magnitude.js";
import { globalParameters, modelParameters, sparseTaskArithmetic } from "./sparse-task-arithmetic.js";

/**
 * TIES (arXiv 2306.01708): trim each task vector to its floor(density n) largest magnitudes (one at least), elect the sign
 * of each element by the weighted sum, and average the task vectors that agree. A density of 0 drops the model.
 */
export const ties = sparseTaskArithmetic<Values<typeof modelParameters>>({
  description: "trims task vectors, elects signs and merges what agrees (TIES, arXiv 2306.01708)",
  global: globalParameters({ normalize: true, rescale: false }),
  model: modelParameters,
  sparsifier: byMagnitude((elements, { density }) => ({ first: 0, last: Math.max(1, Math.floor(density * elements)) })),
  hasConsensus: true,
});
