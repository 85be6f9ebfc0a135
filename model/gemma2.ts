/** Gemma 2 (arXiv 2408.00118): every other layer slides, logits of attention and head are capped. */
import type { Family } from "./config.js";
import { everyType, type Keys, LAYER_TYPES } from "./config-keys.js";

export function gemma2({ raw, rope, layerTypes, integer }: Keys, layers: number): Family {
  const key = ["rope_parameters", "rope_scaling"].find((name) => raw[name]) ?? "rope_theta";
  const value = key === "rope_theta" ? null : raw[key];
  return {
    rope: everyType(rope(key, value, raw.rope_theta ?? 10000)),
    normsQueriesAndKeys: false,
    slidingWindow: integer("sliding_window", 4096),
    layerTypes: layerTypes(layers, (layer) => LAYER_TYPES[layer % 2]!),
    defaults: {
      vocabSize: 256000,
      maxPositionEmbeddings: 8192,
      attnLogitSoftcapping: 50,
      finalLogitSoftcapping: 30,
    },
  };
}
