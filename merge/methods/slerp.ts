import { defineMethod } from "../method.js";
import { arcWeights } from "../slerp.js";
import type { Products } from "../task-vectors.js";
import { toProducts } from "./weighted.js";

/** Tensors whose cosine is further from zero are interpolated on the line. Siblings of one base mostly are: see `nuslerp`. */
const MAX_COSINE = 0.9995;
/** A tensor that is not longer than this has no direction: it counts as perpendicular to the other. */
const MIN_NORM = 1e-8;

/**
 * SLERP of full weights, a tensor at a time (Shoemake, "Animating rotation with quaternion curves", 1985):
 *
 *     sin((1 - t) O) / sin O base + sin(t O) / sin O model,    O = angle between base and model.
 *
 * The tensors are not normalised in the sum. t from 0 (the base) to 1 (the model).
 */
export const slerp = defineMethod({
  description: "spherical interpolation of the base's and one model's weights (Shoemake 1985)",
  base: "required",
  maxModels: 1,
  global: {
    t: { type: "number", min: 0, max: 1, description: "0 is the base, 1 the model" },
  },
  model: {},
  passes: [{ products: () => "sources", conclude: (sums, { global }) => slerpWeights(toProducts(sums), global.t) }],
  weights: (_settings, [weights]) => weights!,
});

function slerpWeights([first, second]: Products, t: number): [number, number] {
  const lengths = [Math.sqrt(first![0]!), Math.sqrt(second![1]!)].map((norm) => (norm > MIN_NORM ? norm : 1));
  const cosine = first![1]! / (lengths[0]! * lengths[1]!);
  return arcWeights(Math.abs(cosine) > MAX_COSINE ? null : Math.acos(cosine), t);
}
