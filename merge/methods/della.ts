import type { ParameterSpecs, Values } from "../method.js";
import { dropByRank } from "../random.js";
import { RowRanks } from "./row-ranks.js";
import {
  globalParameters,
  modelParameters,
  type SparseSettings,
  type Sparsifier,
  sparseTaskArithmetic,
} from "./sparse-task-arithmetic.js";

const model = {
  ...modelParameters,
  epsilon: {
    type: "number",
    default: 0.15,
    min: 0,
    max: 1,
    description: "how far the largest and smallest are from density",
  },
} as const satisfies ParameterSpecs;

/**
 * MagPrune: an element stays with a probability that grows with the rank of its magnitude within its row, from
 * density - epsilon for the smallest to density + epsilon for the largest, evenly. Of equal magnitudes the later ranks
 * higher. The only element of a row stays with probability density. A tensor of one axis is one row.
 */
const byRank: Sparsifier<Values<typeof model>> = {
  passes: [],
  needsRows: true,
  keeper(part, index, { seed, models }) {
    const { density, epsilon } = models[index]!;
    const { columns } = part;
    const least = columns > 1 ? density - epsilon : density;
    const step = columns > 1 ? (2 * epsilon) / (columns - 1) : 0;
    const ranks = new RowRanks(columns);
    return ({ bits, start, count }) => {
      for (let row = 0; row < count; row += columns) {
        const draws = { seed, model: index, start: part.start + start + row };
        dropByRank(bits, row, ranks.of(bits, row), draws, least, step);
      }
    };
  },
};

function check({ models }: SparseSettings<Values<typeof model>>): void {
  for (const { density, epsilon } of models) {
    if (density <= 0 || density >= 1 || (density - epsilon > 0 && density + epsilon < 1)) continue;
    throw new RangeError(
      `della: density ${density} with epsilon ${epsilon} gives probabilities from ${density - epsilon} to ${density + epsilon}: expected them between 0 and 1, both excluded`,
    );
  }
}

/** DELLA (arXiv 2406.11617): drops small changes rather than large ones at random, then elects signs as TIES does. */
export const della = sparseTaskArithmetic({
  description: "drops changes at random, small ones rather, and elects signs (DELLA, arXiv 2406.11617)",
  global: globalParameters({ normalize: true, rescale: true }),
  model,
  sparsifier: byRank,
  hasConsensus: true,
  check,
});

/** As `della`, without the election. */
export const dellaLinear = sparseTaskArithmetic({
  description: "DELLA without the election of signs (arXiv 2406.11617)",
  global: globalParameters({ normalize: false, rescale: true }),
  model,
  sparsifier: byRank,
  hasConsensus: false,
  check,
});
