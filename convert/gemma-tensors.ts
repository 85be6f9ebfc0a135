// Names, shapes and values of Gemma's tensors: in a GGUF file, and in Hugging Face's checkpoints.
import type { Architecture, GemmaSizes } from "./gemma-config.js";

export interface GemmaTensor {
  /** In the GGUF file. */
  readonly from: string;
  /** In the checkpoint. */
  readonly name: string;
  readonly shape: readonly number[];
  /** What the GGUF file has added to every value: norms multiply by 1 + w, and 1 + w is what it holds. */
  readonly plus: 0 | 1;
}

/** Every tensor of a model, in the order of the checkpoint. The head is the embedding. */
export function gemmaTensors(architecture: Architecture, sizes: GemmaSizes): GemmaTensor[] {
  const { vocabulary, hidden, layers } = sizes;
  return [
    { from: "token_embd.weight", name: "model.embed_tokens.weight", shape: [vocabulary, hidden], plus: 0 },
    ...Array.from({ length: layers }, (_, layer) => layerTensors(architecture, sizes, layer)).flat(),
    { from: "output_norm.weight", name: "model.norm.weight", shape: [hidden], plus: 1 },
  ];
}

function layerTensors(
  architecture: Architecture,
  { hidden, mlp, heads, kvHeads, head }: GemmaSizes,
  layer: number,
): GemmaTensor[] {
  const [queries, keys] = [heads * head, kvHeads * head];
  const matrices: readonly [string, string, number, number][] = [
    ["attn_q", "self_attn.q_proj", queries, hidden],
    ["attn_k", "self_attn.k_proj", keys, hidden],
    ["attn_v", "self_attn.v_proj", keys, hidden],
    ["attn_output", "self_attn.o_proj", hidden, queries],
    ["ffn_gate", "mlp.gate_proj", mlp, hidden],
    ["ffn_up", "mlp.up_proj", mlp, hidden],
    ["ffn_down", "mlp.down_proj", hidden, mlp],
  ];
  const norms: readonly [string, string, number][] = [
    ["attn_norm", "input_layernorm", hidden],
    ["post_attention_norm", "post_attention_layernorm", hidden],
    ["ffn_norm", "pre_feedforward_layernorm", hidden],
    ["post_ffw_norm", "post_feedforward_layernorm", hidden],
  ];
  const headNorms: readonly [string, string, number][] = [
    ["attn_q_norm", "self_attn.q_norm", head],
    ["attn_k_norm", "self_attn.k_norm", head],
  ];
  const names = (from: string, name: string) => ({
    from: `blk.${layer}.${from}.weight`,
    name: `model.layers.${layer}.${name}.weight`,
  });
  return [
    ...matrices.map(([from, name, ...shape]): GemmaTensor => ({ ...names(from, name), shape, plus: 0 })),
    ...[...norms, ...(architecture === "gemma3" ? headNorms : [])].map(
      ([from, name, size]): GemmaTensor => ({ ...names(from, name), shape: [size], plus: 1 }),
    ),
  ];
}
