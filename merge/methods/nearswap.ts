import { defineMethod } from "../method.js";

/** Differences are divided by no less. */
const MIN_DIFFERENCE = 1e-6;

/**
 * (1 - w) base + w model with w = min(1, t / |base - model|), element by element: where they differ by less than t the
 * model's element is taken, elsewhere the base's moves by t towards it.
 * (huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001)
 */
export const nearswap = defineMethod({
  description: "moves each weight of the base by at most t towards the model's (NearSwap, alchemonaut)",
  base: "required",
  maxModels: 1,
  global: {
    t: { type: "number", description: "how far a weight moves at most" },
  },
  model: {},
  passes: [],
  combine({ base, models: [model] }, { global: { t } }, _known, out) {
    const a = base!;
    const b = model!;
    for (let i = 0; i < out.length; i++) {
      const difference = b[i]! - a[i]!;
      const share = Math.max(0, Math.min(1, t / Math.max(MIN_DIFFERENCE, Math.abs(difference))));
      out[i] = share === 1 ? b[i]! : a[i]! + share * difference;
    }
  },
});
