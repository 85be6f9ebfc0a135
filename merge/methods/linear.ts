import { defineMethod } from "../method.js";
import { divisorOf } from "./weighted.js";

/**
 * sum of w_m model_m, divided by the sum of the w_m where `normalize` is set (model soups, arXiv 2203.05482).
 * Weights that sum to zero are not divided.
 */
export const linear = defineMethod({
  description: "weighted average of the models (model soups, arXiv 2203.05482)",
  base: "none",
  global: {
    normalize: { type: "boolean", default: true, description: "divide by the sum of the weights" },
  },
  model: {
    weight: { type: "number", description: "share of the model" },
  },
  passes: [],
  weights({ global, models }) {
    const weights = models.map(({ weight }) => weight);
    const divisor = global.normalize ? divisorOf(weights) : 1;
    return weights.map((weight) => weight / divisor);
  },
});
