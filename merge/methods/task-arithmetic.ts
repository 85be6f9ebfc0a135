import { defineMethod } from "../method.js";
import { globalParameters, modelParameters } from "./sparse-task-arithmetic.js";
import { divisorOf, weightsFromBase } from "./weighted.js";

/**
 * base + lambda * sum over m of weight_m (model_m - base), divided by the sum of the weights with `normalize` (arXiv
 * 2212.04089). Nothing is dropped: density and rescale, which recipes may hold, are without effect.
 */
export const taskArithmetic = defineMethod({
  description: "adds weighted task vectors to the base (task arithmetic, arXiv 2212.04089)",
  base: "required",
  global: globalParameters({ normalize: false, rescale: false }),
  model: modelParameters,
  passes: [],
  weights({ global, models }) {
    const weights = models.map(({ weight }) => weight);
    const factor = global.lambda / (global.normalize ? divisorOf(weights) : 1);
    return weightsFromBase(weights.map((weight) => factor * weight));
  },
});
