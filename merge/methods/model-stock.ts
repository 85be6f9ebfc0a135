import { defineMethod, type Part } from "../method.js";
import type { Products } from "../task-vectors.js";
import { productsOfRow, toProducts, weightsFromBase } from "./weighted.js";

/** Below it the share has no finite value: the models point away from each other, and the base is kept. */
const MIN_DENOMINATOR = 1e-6;

/**
 * Model Stock (arXiv 2403.19522): base + t (mean of the models - base), with the share that the angle between fine-tunes
 * gives, one for a tensor or (`filter_wise`) one for each of its rows:
 *
 *     t = N cos / (1 + (N - 1) cos),    cos = mean cosine of the task vectors' pairs.
 *
 * A task vector that is zero is perpendicular to all. Opposite ones, where the denominator vanishes, keep the base.
 */
export const modelStock = defineMethod({
  description: "average of the models, drawn to the base by the angle between them (Model Stock, arXiv 2403.19522)",
  base: "required",
  minModels: 2,
  global: {
    filter_wise: { type: "boolean", default: false, description: "an angle for each row instead of one for a tensor" },
  },
  model: {},
  passes: [
    {
      isNeeded: (_known, { global }) => !global.filter_wise,
      products: () => "task vectors",
      conclude: (sums) => [shareOf(toProducts(sums))],
    },
  ],
  needsRows: true,
  weights({ global, models }, [tensor]) {
    if (global.filter_wise) return null;
    return weightsFromBase(models.map(() => tensor![0]! / models.length));
  },
  combine: (part, _settings, _known, out) => combineRows(part, out),
});

function shareOf(products: Products): number {
  const count = products.length;
  let sum = 0;
  for (let a = 0; a < count; a++) {
    for (let b = 0; b < a; b++) {
      const lengths = Math.sqrt(products[a]![a]! * products[b]![b]!);
      if (lengths > 0) sum += Math.min(1, Math.max(-1, products[a]![b]! / lengths));
    }
  }
  const cosine = sum / ((count * (count - 1)) / 2);
  const denominator = 1 + (count - 1) * cosine;
  return Math.abs(denominator) < MIN_DENOMINATOR ? 0 : (count * cosine) / denominator;
}

function combineRows(part: Part, out: Float32Array): void {
  const { models, columns } = part;
  const base = part.base!;
  for (let start = 0; start < out.length; start += columns) {
    const share = shareOf(productsOfRow(part, start, start + columns));
    const weight = share / models.length;
    for (let i = start; i < start + columns; i++) {
      let sum = 0;
      for (let m = 0; m < models.length; m++) sum += models[m]![i]!;
      out[i] = (1 - share) * base[i]! + weight * sum;
    }
  }
}
