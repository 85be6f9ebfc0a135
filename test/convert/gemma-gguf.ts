/** Small Gemmas as GGUF files. Names are written out: they are what a reader would look up. */
import type { MetadataValue } from "../../convert/gguf-header.js";
import { float32Bytes, type TestGguf, type TestTensor } from "./gguf-bytes.js";

/** Sizes: vocabulary 6, width 32, MLP 64, 2 heads of 16, 1 of keys. */
const LAYER: readonly (readonly [string, readonly number[]])[] = [
  ["attn_norm", [32]],
  ["attn_q", [32, 32]],
  ["attn_k", [16, 32]],
  ["attn_v", [16, 32]],
  ["attn_output", [32, 32]],
  ["post_attention_norm", [32]],
  ["ffn_norm", [32]],
  ["ffn_gate", [64, 32]],
  ["ffn_up", [64, 32]],
  ["ffn_down", [32, 64]],
  ["post_ffw_norm", [32]],
];
const HEAD_NORMS: readonly (readonly [string, readonly number[]])[] = [
  ["attn_q_norm", [16]],
  ["attn_k_norm", [16]],
];

const METADATA: Readonly<Record<string, MetadataValue>> = {
  context_length: 1024,
  embedding_length: 32,
  block_count: 2,
  feed_forward_length: 64,
  "attention.head_count": 2,
  "attention.head_count_kv": 1,
  "attention.layer_norm_rms_epsilon": 1e-6,
  "attention.key_length": 16,
  "attention.sliding_window": 512,
};

export interface Changes {
  /** undefined removes a key. */
  readonly metadata?: Readonly<Record<string, MetadataValue | undefined>>;
  /** Tensors by name that are otherwise; undefined removes one. */
  readonly tensors?: Readonly<Record<string, Omit<TestTensor, "name"> | undefined>>;
}

/** Value i of tensor t is t + i / 1024, exact in float32. */
export function gemmaGguf(architecture: string, { metadata = {}, tensors = {} }: Changes = {}): TestGguf {
  const layer = architecture === "gemma3" ? [...LAYER, ...HEAD_NORMS] : LAYER;
  const shapes = [
    ["output_norm.weight", [32]] as const,
    ["token_embd.weight", [6, 32]] as const,
    ...[0, 1].flatMap((i) => layer.map(([name, shape]) => [`blk.${i}.${name}.weight`, shape] as const)),
  ];
  const made = new Map(
    shapes.map(([name, shape], t) => {
      const count = shape.reduce((product, size) => product * size, 1);
      return [name, { shape, data: float32Bytes(Array.from({ length: count }, (_, i) => t + i / 1024)) }];
    }),
  );
  const all: Record<string, Omit<TestTensor, "name"> | undefined> = { ...Object.fromEntries(made), ...tensors };
  const keys: Record<string, MetadataValue | undefined> = {
    "general.architecture": architecture,
    ...Object.fromEntries(Object.entries(METADATA).map(([key, value]) => [`${architecture}.${key}`, value])),
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<pad>", "<eos>", "<bos>", "<unk>", "a", "b"],
    "tokenizer.ggml.scores": [0, 0, 0, 0, -1, -2],
    "tokenizer.ggml.token_type": [3, 3, 3, 2, 1, 1],
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.unknown_token_id": 3,
    ...metadata,
  };
  const given = <T>(entries: Readonly<Record<string, T | undefined>>) =>
    Object.entries(entries).filter((entry): entry is [string, T] => entry[1] !== undefined);
  return {
    metadata: Object.fromEntries(given(keys)),
    tensors: given(all).map(([name, tensor]) => ({ name, ...tensor })),
  };
}
