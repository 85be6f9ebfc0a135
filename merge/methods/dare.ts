import type { Values } from "../method.js";
import { dropAtRandom } from "../random.js";
import { globalParameters, modelParameters, type Sparsifier, sparseTaskArithmetic } from "./sparse-task-arithmetic.js";

/**
 * Each element stays with probability density. What is left is rescaled by the L1 norms (see `rescale`), which is close to
 * the paper's 1 / density, and closer to the task vector where it is small or uneven.
 */
const atRandom: Sparsifier<Values<typeof modelParameters>> = {
  passes: [],
  keeper(part, model, { seed, models }) {
    const { density } = models[model]!;
    return ({ bits, start, count }) => dropAtRandom(bits, count, { seed, model, start: part.start + start }, density);
  },
};

/** DARE (arXiv 2311.03099): task arithmetic on task vectors of which random elements are dropped. */
export const dareLinear = sparseTaskArithmetic({
  description: "task arithmetic that drops random changes and rescales (DARE, arXiv 2311.03099)",
  global: globalParameters({ normalize: false, rescale: true }),
  model: modelParameters,
  sparsifier: atRandom,
  hasConsensus: false,
});

/** As `dareLinear`, with the election of signs of TIES. */
export const dareTies = sparseTaskArithmetic({
  description: "DARE with the election of signs of TIES (arXiv 2311.03099, 2306.01708)",
  global: globalParameters({ normalize: false, rescale: true }),
  model: modelParameters,
  sparsifier: atRandom,
  hasConsensus: true,
});
