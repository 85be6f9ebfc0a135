/** Gemma 3's config in the styles of the hub and of transformers 5, and its checkpoints with vision. */
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, writeSafetensors } from "safetensors-ts";
import { expect, test } from "vitest";
import { parseModelConfig, readModelConfig } from "../../model/config.js";
import { openModel } from "../../model/load.js";
import { saveModel } from "../../model/save.js";
import { parameterShapes, textName } from "../../model/shapes.js";
import { loadWeights } from "../../model/weights.js";
import { copyOf } from "./folder.js";
import { fixture } from "./golden.js";

const parse = (config: Record<string, unknown>) =>
  parseModelConfig("config.json", { model_type: "gemma3_text", ...config });

test("both styles of gemma3-tiny are read to the same", async () => {
  const config = await readModelConfig(fixture("models/gemma3-tiny"));
  const dir = await copyOf("models/gemma3-tiny");
  await cp(fixture("models/gemma3-tiny/config.v5.json"), join(dir, "config.json"));
  expect(await readModelConfig(dir)).toEqual(config);
  const [s, f] = ["sliding_attention", "full_attention"];
  expect(config).toMatchObject({
    normsQueriesAndKeys: true,
    rope: { sliding_attention: { theta: 1e4, factor: 1 }, full_attention: { theta: 1e6, factor: 1 } },
    layerTypes: [s, s, f, s, s, f, s],
    attnLogitSoftcapping: null,
    finalLogitSoftcapping: null,
  });
});

test.each([
  ["google/gemma-3-270m", 640, 18, 4, 1, 2048, 3],
  ["google/gemma-3-1b-it", 1152, 26, 4, 1, 6912, 4],
])("reads the values of %s", (_, hidden, layers, heads, groups, mlp, global) => {
  const read = parse({
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: groups,
    head_dim: 256,
    intermediate_size: mlp,
    vocab_size: 262144,
    sliding_window: 512,
    sliding_window_pattern: 6,
    rope_theta: 1000000,
    rope_local_base_freq: 10000,
    rope_scaling: null,
    max_position_embeddings: 32768,
  });
  expect(read.layerTypes.filter((type) => type === "full_attention")).toHaveLength(global);
  expect(read.layerTypes[5]).toBe("full_attention");
  expect(parameterShapes(read)["model.layers.0.self_attn.q_norm.weight"]).toEqual([256]);
});

/** What the hub's config of a 4B model holds, but for its sizes. */
const multimodal = (text: object) => ({
  architectures: ["Gemma3ForConditionalGeneration"],
  model_type: "gemma3",
  eos_token_id: [1, 106],
  torch_dtype: "float32",
  text_config: { ...text, model_type: "gemma3_text", rope_scaling: { factor: 8.0, rope_type: "linear" } },
  vision_config: { model_type: "siglip_vision_model" },
});

test("of a config with vision the text part is read: linear scaling is of the global layers, token ids stand beside", () => {
  const read = parse(multimodal({ hidden_size: 2560, num_hidden_layers: 34, sliding_window: 1024 }));
  expect(read).toMatchObject({
    hiddenSize: 2560,
    vocabSize: 262208,
    eosTokenIds: [1, 106],
    rope: { sliding_attention: { theta: 1e4, factor: 1 }, full_attention: { theta: 1e6, factor: 8 } },
  });
  expect(() => parse({ model_type: "gemma3" })).toThrow(
    'config.json: "text_config" is absent, expected an object, the config of the text part',
  );
});

test("a cap on attention logits, which transformers would leave out, is refused", () => {
  expect(() => parse({ attn_logit_softcapping: 50 })).toThrow(
    'config.json: "attn_logit_softcapping" is 50, expected null (nothing else is supported)',
  );
});

test("rope_parameters must be by type of layer", () => {
  expect(() => parse({ rope_parameters: 10000 })).toThrow(
    'config.json: "rope_parameters" is 10000, expected an object with sliding_attention and full_attention',
  );
  expect(() => parse({ rope_parameters: { rope_theta: 10000 } })).toThrow(
    'config.json: "rope_parameters" is {"rope_theta":10000}, expected an object with sliding_attention and full_attention',
  );
});

test.each([
  ["language_model.model.embed_tokens.weight", "model.embed_tokens.weight"],
  ["language_model.lm_head.weight", "lm_head.weight"],
  ["model.language_model.norm.weight", "model.norm.weight"],
  ["model.norm.weight", "model.norm.weight"],
  ["vision_tower.vision_model.post_layernorm.bias", null],
  ["model.multi_modal_projector.mm_input_projection_weight", null],
])("%s is %s in the text model", (name, expected) => {
  expect(textName(name)).toBe(expected);
});

test("the text part of a checkpoint with vision is loaded, and written as a text model", async () => {
  const source = fixture("models/gemma3-tiny");
  const dir = await copyOf("models/gemma3-tiny");
  const text = JSON.parse(await readFile(join(source, "config.json"), "utf8"));
  await writeFile(join(dir, "config.json"), JSON.stringify(multimodal(text)));
  const checkpoint = await openCheckpoint(source);
  const tensors = await Promise.all(
    checkpoint.tensors.map(async ({ name, dtype, shape }) => {
      return { name: `language_model.${name}`, dtype, shape, data: await checkpoint.read(name) };
    }),
  );
  await checkpoint.close();
  const vision = { name: "vision_tower.bias", dtype: "F32", shape: [1], data: new Uint8Array(4) } as const;
  await writeSafetensors(join(dir, "model.safetensors"), [...tensors, vision]);

  const { config } = await openModel(dir);
  const weights = await loadWeights(dir, config);
  const plain = await loadWeights(source, await readModelConfig(source));
  expect(Object.keys(weights)).toEqual(Object.keys(plain));
  const q = "model.layers.3.self_attn.q_proj.weight";
  expect(weights[q]!.arraySync()).toEqual(plain[q]!.arraySync());

  const host = Object.entries(weights).map(([name, tensor]) => {
    return [name, { shape: tensor.shape, values: tensor.dataSync() as Float32Array }];
  });
  const out = join(dir, "out");
  await saveModel(out, Object.fromEntries(host), { from: dir, dtype: "bfloat16" });
  const saved = JSON.parse(await readFile(join(out, "config.json"), "utf8"));
  expect(saved).toMatchObject({
    model_type: "gemma3_text",
    architectures: ["Gemma3ForCausalLM"],
    eos_token_id: [1, 106],
    torch_dtype: "bfloat16",
  });
  expect(saved.vision_config).toBeUndefined();
  expect(await readModelConfig(out)).toEqual({ ...config, dtype: "bfloat16" });
});
