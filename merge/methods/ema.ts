import { defineMethod } from "../method.js";

/**
 * Exponential moving average of checkpoints in their order: e = model_1, then e <- (1 - mu) e + mu model_m.
 * WARP's anchor has mu 0.01 at every step (arXiv 2406.16768, section 3.1): over checkpoints 69 steps apart that is 0.5.
 */
export const ema = defineMethod({
  description: "exponential moving average of checkpoints, the first to the last",
  base: "none",
  global: {
    mu: { type: "number", default: 0.5, min: 0, max: 1, description: "share of each next model" },
  },
  model: {},
  passes: [],
  weights({ global: { mu }, models }) {
    const last = models.length - 1;
    return models.map((_, m) => (m === 0 ? 1 : mu) * (1 - mu) ** (last - m));
  },
});
