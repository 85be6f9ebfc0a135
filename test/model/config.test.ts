/** config.json in both styles, and everything that makes it an error. */
import { cp, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseModelConfig, readModelConfig } from "../../model/config.js";
import { everyType } from "../../model/config-keys.js";
import { parameterShapes } from "../../model/shapes.js";
import { newFolder } from "./folder.js";
import { fixture } from "./golden.js";

const tiny = {
  vocabSize: 384,
  hiddenSize: 64,
  intermediateSize: 160,
  numHiddenLayers: 4,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 24,
  maxPositionEmbeddings: 128,
  rmsNormEps: 1e-6,
  rope: everyType({ theta: 10000, factor: 1 }),
  normsQueriesAndKeys: false,
  numLabels: null,
  queryPreAttnScalar: 20,
  slidingWindow: 8,
  layerTypes: ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
  attnLogitSoftcapping: 50,
  finalLogitSoftcapping: 30,
  bosTokenId: 2,
  eosTokenIds: [1],
  padTokenId: 0,
  dtype: "float32",
  compute: { dtype: "float32", quantised: null, segments: null },
};

describe("readModelConfig", () => {
  test("reads the hub's style: rope_theta, torch_dtype, even layers slide", async () => {
    expect(await readModelConfig(fixture("models/gemma2-tiny"))).toEqual(tiny);
  });

  test("reads the style of transformers 5 to the same: rope_parameters, dtype, layer_types", async () => {
    const dir = await mkdtemp(join(tmpdir(), "heddle-model-"));
    await cp(fixture("models/gemma2-tiny/config.v5.json"), join(dir, "config.json"));
    expect(await readModelConfig(dir)).toEqual(tiny);
  });

  test("says what is missing or is no JSON object", async () => {
    const dir = await newFolder();
    const path = join(dir, "config.json");
    await expect(readModelConfig(dir)).rejects.toThrow(
      `${path}: no such file, expected the config.json of a Hugging Face model folder`,
    );
    await writeFile(path, "{,}");
    await expect(readModelConfig(dir)).rejects.toThrow(`${path}: not valid JSON (`);
    await writeFile(path, "[1]");
    await expect(readModelConfig(dir)).rejects.toThrow(`${path}: holds [1], expected a JSON object`);
  });
});

describe("parseModelConfig", () => {
  const parse = (config: Record<string, unknown>) =>
    parseModelConfig("config.json", { model_type: "gemma2", ...config });

  test("takes the defaults of transformers' Gemma2Config, which are those of Gemma 2 2B", () => {
    expect(parse({})).toMatchObject({
      vocabSize: 256000,
      hiddenSize: 2304,
      numHiddenLayers: 26,
      headDim: 256,
      queryPreAttnScalar: 256,
      slidingWindow: 4096,
      attnLogitSoftcapping: 50,
      finalLogitSoftcapping: 30,
    });
  });

  test("reads a list of stop tokens, no cap, and layer types in any order", () => {
    const layer_types = ["full_attention", "full_attention", "sliding_attention"];
    expect(
      parse({ eos_token_id: [1, 107], attn_logit_softcapping: null, num_hidden_layers: 3, layer_types }),
    ).toMatchObject({ eosTokenIds: [1, 107], attnLogitSoftcapping: null, layerTypes: layer_types });
    expect(parse({ eos_token_id: null }).eosTokenIds).toEqual([]);
  });

  test("reads linear scaling of rotary positions in either style", () => {
    const scaled = everyType({ theta: 10000, factor: 8 });
    expect(parse({ rope_scaling: { type: "linear", factor: 8 } }).rope).toEqual(scaled);
    expect(parse({ rope_parameters: { rope_type: "linear", rope_theta: 1e4, factor: 8 } }).rope).toEqual(scaled);
  });

  test.each([
    ["google/gemma-2-2b", 2304, 26, 8, 4, 256, 9216, 256],
    ["google/gemma-2-9b", 3584, 42, 16, 8, 256, 14336, 256],
    ["google/gemma-2-27b", 4608, 46, 32, 16, 128, 36864, 144],
  ])("reads the values of %s", (_, hidden, layers, heads, groups, headDim, mlp, scalar) => {
    const read = parse({
      hidden_size: hidden,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: groups,
      head_dim: headDim,
      intermediate_size: mlp,
      query_pre_attn_scalar: scalar,
      cache_implementation: "hybrid",
      hidden_act: "gelu_pytorch_tanh",
      sliding_window: 4096,
    });
    const shapes = parameterShapes(read);
    expect(Object.keys(shapes)).toHaveLength(2 + 11 * layers);
    expect(shapes["model.layers.0.self_attn.q_proj.weight"]).toEqual([heads * headDim, hidden]);
    expect(shapes["model.layers.0.self_attn.k_proj.weight"]).toEqual([groups * headDim, hidden]);
    expect(read).toMatchObject({ vocabSize: 256000, maxPositionEmbeddings: 8192, queryPreAttnScalar: scalar });
  });

  const rope = 'a positive rope_theta and rope_type "default", or "linear" with a positive factor';
  test.each<[string, Record<string, unknown>, string]>([
    ["another model", { model_type: "llama" }, '"model_type" is "llama", expected one of gemma2, gemma3_text, gemma3'],
    [
      "no model type",
      { model_type: undefined },
      '"model_type" is undefined, expected one of gemma2, gemma3_text, gemma3',
    ],
    ["text for a size", { hidden_size: "64" }, '"hidden_size" is "64", expected a positive integer'],
    ["a fractional size", { head_dim: 24.5 }, '"head_dim" is 24.5, expected a positive integer'],
    ["an odd head size", { head_dim: 25 }, '"head_dim" is 25, expected an even number'],
    ["a zero epsilon", { rms_norm_eps: 0 }, '"rms_norm_eps" is 0, expected a positive number'],
    [
      "a zero cap",
      { final_logit_softcapping: 0 },
      '"final_logit_softcapping" is 0, expected a positive number or null',
    ],
    ["a negative id", { pad_token_id: -1 }, '"pad_token_id" is -1, expected a token id or null'],
    [
      "a bad stop token",
      { eos_token_id: [1, "x"] },
      '"eos_token_id" is [1,"x"], expected a token id or a list of token ids',
    ],
    [
      "heads that do not group",
      { num_attention_heads: 4, num_key_value_heads: 3 },
      '"num_key_value_heads" is 3, expected a divisor of num_attention_heads, 4',
    ],
    [
      "layer types of another length",
      { num_hidden_layers: 2, layer_types: ["full_attention"] },
      '"layer_types" is ["full_attention"], expected a list of 2 (num_hidden_layers) of sliding_attention, full_attention',
    ],
    [
      "an unknown layer type",
      { num_hidden_layers: 1, layer_types: ["mamba"] },
      '"layer_types" is ["mamba"], expected a list of 1 (num_hidden_layers) of sliding_attention, full_attention',
    ],
    [
      "scaled rotary positions",
      { rope_scaling: { type: "dynamic", factor: 2 } },
      `"rope_scaling" is {"type":"dynamic","factor":2}, expected ${rope}`,
    ],
    [
      "a scaling factor of zero",
      { rope_scaling: { type: "linear", factor: 0 } },
      `"rope_scaling" is {"type":"linear","factor":0}, expected ${rope}`,
    ],
    [
      "scaled rope_parameters",
      { rope_parameters: { rope_type: "yarn", rope_theta: 1e4 } },
      `"rope_parameters" is {"rope_type":"yarn","rope_theta":10000}, expected ${rope}`,
    ],
    ["a bad rotary base", { rope_theta: "1e4" }, `"rope_theta" is "1e4", expected ${rope}`],
    [
      "another activation",
      { hidden_activation: "gelu" },
      '"hidden_activation" is "gelu", expected "gelu_pytorch_tanh" (nothing else is supported)',
    ],
    ["biases", { attention_bias: true }, '"attention_bias" is true, expected false (nothing else is supported)'],
    [
      "dropout",
      { attention_dropout: 0.1 },
      '"attention_dropout" is 0.1, expected 0 or null (nothing else is supported)',
    ],
    [
      "an untied head",
      { tie_word_embeddings: false },
      '"tie_word_embeddings" is false, expected true (nothing else is supported)',
    ],
    [
      "attention to both sides",
      { use_bidirectional_attention: true },
      '"use_bidirectional_attention" is true, expected false or null (nothing else is supported)',
    ],
    [
      "quantised weights",
      { quantization_config: { bits: 4 } },
      '"quantization_config" is {"bits":4}, expected null or quant_method "bitsandbytes" with load_in_8bit, or load_in_4bit and nf4',
    ],
    [
      "weights quantised by another method",
      { quantization_config: { quant_method: "gptq", bits: 4 } },
      '"quantization_config" is {"quant_method":"gptq","bits":4}, expected null or quant_method "bitsandbytes" with load_in_8bit, or load_in_4bit and nf4',
    ],
    [
      "another dtype",
      { torch_dtype: "float64" },
      '"torch_dtype" is "float64", expected one of float32, bfloat16, float16',
    ],
  ])("refuses %s", (_, changes, message) => {
    expect(() => parse(changes)).toThrow(
      expect.objectContaining({ name: "ModelError", message: `config.json: ${message}` }),
    );
  });
});
