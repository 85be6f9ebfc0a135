/**
 * Gemma 3 (arXiv 2503.19786), its text part: every sixth layer sees everything, at rotary frequencies of its own;
 * queries and keys are normalised, nothing is capped.
 */
import type { Family } from "./config.js";
import { type ByType, isObject, type Keys, LAYER_TYPES, type Rope } from "./config-keys.js";
import { ModelError } from "./errors.js";
import type { JsonObject } from "./json.js";

export function gemma3Text({ raw, fail, only, rope, layerTypes, integer }: Keys, layers: number): Family {
  // transformers reads a cap on attention logits, and does not apply it.
  only({ attn_logit_softcapping: [null] });
  const pattern = ["sliding_window_pattern", "_sliding_window_pattern"].find((name) => name in raw);
  const every = integer(pattern ?? "sliding_window_pattern", 6);
  return {
    rope: ropes(raw, rope, fail),
    normsQueriesAndKeys: true,
    slidingWindow: integer("sliding_window", 4096),
    layerTypes: layerTypes(layers, (layer) => LAYER_TYPES[(layer + 1) % every === 0 ? 1 : 0]),
    defaults: {
      vocabSize: 262208,
      maxPositionEmbeddings: 131072,
      attnLogitSoftcapping: null,
      finalLogitSoftcapping: null,
    },
  };
}

/**
 * `rope_parameters` of transformers 5 by type of layer; else `rope_theta` and `rope_scaling`, which are those of the
 * layers that see everything, and `rope_local_base_freq`.
 */
function ropes(raw: JsonObject, rope: Keys["rope"], fail: Keys["fail"]): ByType<Rope> {
  const [global, local] = [raw.rope_theta ?? 1e6, raw.rope_local_base_freq ?? 1e4];
  const byType = raw.rope_parameters ?? null;
  if (byType === null) {
    return {
      full_attention: rope(raw.rope_scaling ? "rope_scaling" : "rope_theta", raw.rope_scaling, global),
      sliding_attention: rope("rope_local_base_freq", null, local),
    };
  }
  const isByType = isObject(byType) && Object.keys(byType).every((name) => LAYER_TYPES.some((type) => type === name));
  if (!isByType) fail("rope_parameters", `an object with ${LAYER_TYPES.join(" and ")}`);
  const { full_attention, sliding_attention } = byType as Partial<ByType<unknown>>;
  return {
    full_attention: rope("rope_parameters", full_attention, global),
    sliding_attention: rope("rope_parameters", sliding_attention, local),
  };
}

/** The text part of a model that sees images as well: its `text_config`, with the token ids that stand beside it. */
export function gemma3(path: string, { text_config: text, ...whole }: JsonObject): JsonObject {
  if (!isObject(text)) {
    const got = text === undefined ? "absent" : JSON.stringify(text);
    throw new ModelError(path, `"text_config" is ${got}, expected an object, the config of the text part`);
  }
  const beside = Object.fromEntries(
    ["bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype", "quantization_config"].flatMap((key) =>
      key in whole ? [[key, whole[key]]] : [],
    ),
  );
  return { ...text, model_type: "gemma3_text", architectures: ["Gemma3ForCausalLM"], ...beside };
}
