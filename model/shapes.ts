/** Names and shapes of a model's tensors, as in its checkpoints. Imports no TensorFlow, so that plans need none. */
import type { ModelConfig } from "./config.js";

/** Name of the embedding matrix [V, D], which is the head as well. */
export const EMBEDDING = "model.embed_tokens.weight";

/** Name of the head that is tied to the embedding; some tools write it as well. */
export const HEAD = "lm_head.weight";

/** Name of the head [labels, D] of a model for sequence classification. */
export const SCORE = "score.weight";

/**
 * The name of a checkpoint's tensor in the text model, as a checkpoint of that alone has it; null for parts that see
 * images. Gemma 3's checkpoints with vision begin with `language_model.model.`, or, as transformers names its modules since
 * version 4.52, with `model.language_model.`.
 */
export function textName(name: string): string | null {
  if (/^(model\.)?(vision_tower|multi_modal_projector)\./.test(name)) return null;
  return name.replace(/^language_model\./, "").replace(/^model\.language_model\./, "model.");
}

/** The name of a layer's tensor by the part that all layers share, such as "mlp.up_proj". */
export const layerTensor = (layer: number, name: string): string => `model.layers.${layer}.${name}.weight`;

/**
 * The layer that a tensor belongs to, and the part of its name that all layers share; null for the others. A part of a
 * quantised matrix, such as "model.layers.0.mlp.up_proj.weight.codes", is "mlp.up_proj.codes".
 */
export function layerOf(tensor: string): { layer: number; name: string } | null {
  const [, layer, name, part = ""] = /^model\.layers\.(\d+)\.(.+)\.weight(\.[a-z_]+)?$/.exec(tensor) ?? [];
  return name === undefined ? null : { layer: Number(layer), name: name + part };
}

/** What is added to a tensor of the layers from `first` on, stacked: where a gradient of all of them together is asked for. */
export const changeOf = (first: number, name: string): string => `model.layers.${first}+.${name}.change`;

/** The shape of every tensor of a checkpoint, by name. */
export function parameterShapes(config: ModelConfig): Record<string, number[]> {
  const { hiddenSize: D, intermediateSize: F, headDim: H, numAttentionHeads: N, numKeyValueHeads: K } = config;
  const shapes: Record<string, number[]> = { [EMBEDDING]: [config.vocabSize, D] };
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const of = (name: string, ...shape: number[]) => {
      shapes[layerTensor(layer, name)] = shape;
    };
    of("input_layernorm", D);
    of("mlp.down_proj", D, F);
    of("mlp.gate_proj", F, D);
    of("mlp.up_proj", F, D);
    of("post_attention_layernorm", D);
    of("post_feedforward_layernorm", D);
    of("pre_feedforward_layernorm", D);
    if (config.normsQueriesAndKeys) of("self_attn.k_norm", H);
    of("self_attn.k_proj", K * H, D);
    of("self_attn.o_proj", D, N * H);
    if (config.normsQueriesAndKeys) of("self_attn.q_norm", H);
    of("self_attn.q_proj", N * H, D);
    of("self_attn.v_proj", K * H, D);
  }
  shapes["model.norm.weight"] = [D];
  if (config.numLabels !== null) shapes[SCORE] = [config.numLabels, D];
  return shapes;
}
