import { defineMethod } from "../method.js";
import { slerpWeights } from "../slerp.js";
import { toProducts, weightsFromBase } from "./weighted.js";

/**
 * Stages 2 and 3 of WARP in one reading and one rounding (arXiv 2406.16768): base + eta (slerp - base), where slerp folds
 * the models' task vectors in their order, slerp_m = slerp(slerp_(m-1), model_m; 1/m). See merge/slerp.ts for the fold and
 * for task vectors that are zero, parallel or opposite.
 */
export const warp = defineMethod({
  description: "SLERP of task vectors, then interpolation towards the base (WARP, arXiv 2406.16768)",
  base: "required",
  global: {
    granularity: {
      type: "choice",
      choices: ["tensor", "layer", "model"],
      default: "layer",
      description: "what has an angle of its own: a tensor, a transformer layer, the model",
    },
    eta: { type: "number", default: 0.3, min: 0, max: 1, description: "0 keeps the base, 1 is SLERP alone" },
  },
  model: {},
  granularity: ({ global }) => global.granularity,
  passes: [{ products: () => "task vectors", conclude: (sums) => slerpWeights(toProducts(sums)).weights }],
  // eta is applied here: within a layer it may differ from tensor to tensor.
  weights: ({ global }, [weights]) => weightsFromBase(weights!.map((weight) => global.eta * weight)),
});
