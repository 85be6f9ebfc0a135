import { describe, expect, test } from "vitest";
import { type Architecture, gemmaConfig, readSizes } from "../../convert/gemma-config.js";
import type { MetadataValue } from "../../convert/gguf-header.js";
import { metadataReader } from "../../convert/metadata.js";
import { parseModelConfig } from "../../model/config.js";
import type { JsonObject } from "../../model/json.js";

type Keys = Readonly<Record<string, MetadataValue>>;

/** What llama.cpp's converter writes for the models of the hub. */
const GEMMA_2_2B: Keys = {
  "gemma2.context_length": 8192,
  "gemma2.embedding_length": 2304,
  "gemma2.block_count": 26,
  "gemma2.feed_forward_length": 9216,
  "gemma2.attention.head_count": 8,
  "gemma2.attention.head_count_kv": 4,
  "gemma2.attention.layer_norm_rms_epsilon": Math.fround(1e-6),
  "gemma2.attention.key_length": 256,
  "gemma2.attention.value_length": 256,
  "gemma2.attn_logit_softcapping": 50,
  "gemma2.final_logit_softcapping": 30,
  "gemma2.attention.sliding_window": 4096,
};
const GEMMA_2_27B: Keys = {
  ...GEMMA_2_2B,
  "gemma2.embedding_length": 4608,
  "gemma2.block_count": 46,
  "gemma2.attention.head_count": 32,
  "gemma2.attention.head_count_kv": 16,
  "gemma2.attention.key_length": 128,
};
const GEMMA_3_4B: Keys = {
  "gemma3.context_length": 131072,
  "gemma3.embedding_length": 2560,
  "gemma3.block_count": 34,
  "gemma3.feed_forward_length": 10240,
  "gemma3.attention.head_count": 8,
  "gemma3.attention.head_count_kv": 4,
  "gemma3.attention.layer_norm_rms_epsilon": Math.fround(1e-6),
  "gemma3.attention.key_length": 256,
  "gemma3.rope.freq_base": 1000000,
  "gemma3.rope.scaling.type": "linear",
  "gemma3.rope.scaling.factor": 8,
  "gemma3.attention.sliding_window": 1024,
};

function textOf(architecture: Architecture, keys: Keys, vocabulary: number): string {
  const metadata = metadataReader({ path: "x.gguf", metadata: new Map(Object.entries(keys)) });
  const sizes = readSizes(metadata, architecture, vocabulary);
  return gemmaConfig(metadata, architecture, sizes, { bos: 2, eos: [1, 107], pad: 0 }, "bfloat16");
}
const configOf = (architecture: Architecture, keys: Keys): Record<string, unknown> =>
  JSON.parse(textOf(architecture, keys, 256000)) as Record<string, unknown>;

test("Gemma 2 2B: the hub's config.json; floats are written as floats", () => {
  expect(textOf("gemma2", GEMMA_2_2B, 256000)).toBe(`{
  "architectures": [
    "Gemma2ForCausalLM"
  ],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "attn_logit_softcapping": 50.0,
  "bos_token_id": 2,
  "eos_token_id": [
    1,
    107
  ],
  "final_logit_softcapping": 30.0,
  "head_dim": 256,
  "hidden_activation": "gelu_pytorch_tanh",
  "hidden_size": 2304,
  "initializer_range": 0.02,
  "intermediate_size": 9216,
  "max_position_embeddings": 8192,
  "model_type": "gemma2",
  "num_attention_heads": 8,
  "num_hidden_layers": 26,
  "num_key_value_heads": 4,
  "pad_token_id": 0,
  "query_pre_attn_scalar": 256,
  "rms_norm_eps": 0.000001,
  "rope_theta": 10000.0,
  "sliding_window": 4096,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "use_cache": true,
  "vocab_size": 256000
}
`);
});

test("Gemma 3 4B: linear scaling and the larger base on global layers, every sixth of them", () => {
  const config = configOf("gemma3", GEMMA_3_4B);
  const layers = Array.from({ length: 34 }, (_, i) => ((i + 1) % 6 === 0 ? "full_attention" : "sliding_attention"));
  expect(config).toMatchObject({
    architectures: ["Gemma3ForCausalLM"],
    model_type: "gemma3_text",
    attn_logit_softcapping: null,
    final_logit_softcapping: null,
    layer_types: layers,
    sliding_window_pattern: 6,
    query_pre_attn_scalar: 256,
    rope_local_base_freq: 10000,
    rope_scaling: { factor: 8, rope_type: "linear" },
    rope_theta: 1000000,
    sliding_window: 1024,
  });
  expect(textOf("gemma3", GEMMA_3_4B, 262144)).toContain('"factor": 8.0,');
});

test("both are configs that are read again", () => {
  const read = (architecture: Architecture, keys: Keys) =>
    parseModelConfig("config.json", JSON.parse(textOf(architecture, keys, 256000)) as JsonObject);
  expect(read("gemma2", GEMMA_2_2B)).toMatchObject({ headDim: 256, eosTokenIds: [1, 107], rmsNormEps: 1e-6 });
  const { layerTypes, queryPreAttnScalar } = read("gemma3", GEMMA_3_4B);
  expect(layerTypes.filter((type) => type === "full_attention")).toHaveLength(5);
  expect(queryPreAttnScalar).toBe(256);
});

describe("what the file does not say is what llama.cpp takes for it", () => {
  test("queries of the 27B models are scaled by width / heads: 4608 / 32 = 144 and 5376 / 32 = 168", () => {
    expect(configOf("gemma2", GEMMA_2_27B).query_pre_attn_scalar).toBe(144);
    const gemma3 = {
      ...GEMMA_3_4B,
      "gemma3.embedding_length": 5376,
      "gemma3.block_count": 62,
      "gemma3.attention.head_count": 32,
      "gemma3.attention.key_length": 128,
    };
    expect(configOf("gemma3", gemma3).query_pre_attn_scalar).toBe(168);
  });

  test("caps, window, base and head size", () => {
    const missing = [
      "attn_logit_softcapping",
      "final_logit_softcapping",
      "attention.sliding_window",
      "attention.key_length",
    ];
    const keys = Object.entries(GEMMA_2_2B).filter(([key]) => !missing.includes(key.replace("gemma2.", "")));
    expect(configOf("gemma2", Object.fromEntries(keys))).toMatchObject({
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      head_dim: 288,
      rope_theta: 10000,
      sliding_window: 4096,
    });
  });
});

describe("layers of a Gemma 3 that are listed", () => {
  const key = "gemma3.attention.sliding_window_pattern";
  const small = { ...GEMMA_3_4B, "gemma3.block_count": 3 };

  test("as a pattern, and one by one", () => {
    const [slides, sees] = ["sliding_attention", "full_attention"];
    expect(configOf("gemma3", { ...small, [key]: 2 })).toMatchObject({
      layer_types: [slides, sees, slides],
      sliding_window_pattern: 2,
    });
    const listed = configOf("gemma3", { ...small, [key]: [false, true, true] });
    expect(listed.layer_types).toEqual([sees, slides, slides]);
    expect(listed).not.toHaveProperty("sliding_window_pattern");
  });

  test("as many as there are", () => {
    expect(() => configOf("gemma3", { ...small, [key]: [true] })).toThrow(
      `x.gguf: metadata "${key}" lists 1 layers, expected 3`,
    );
  });
});

test("another scaling of positions is an error", () => {
  expect(() => configOf("gemma3", { ...GEMMA_3_4B, "gemma3.rope.scaling.type": "yarn" })).toThrow(
    'x.gguf: metadata "gemma3.rope.scaling.type" is "yarn", expected none or linear',
  );
});
