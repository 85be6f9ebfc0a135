/** LoRA against peft: golden files in float32, of an adapter on gemma2-tiny (peft had read that as bfloat16). */
import { join } from "node:path";
import { writeSafetensors } from "safetensors-ts";
import { jit, tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openAdapter } from "../../model/adapter.js";
import type { Block } from "../../model/attention.js";
import type { ModelConfig } from "../../model/config.js";
import { ModelError } from "../../model/errors.js";
import { forward, forwardInLoops, logits, type Weights } from "../../model/forward.js";
import { openModel } from "../../model/load.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { isLoraMatrix } from "../../model/lora.js";
import { downloadTensor, readParameters } from "../../model/parameters.js";
import { quantiseNf4 } from "../../model/quantise.js";
import { mergedTensors } from "../../student/lora.js";
import { copyOf, setKeys } from "./folder.js";
import { fixture, largestDifference, readGolden } from "./golden.js";

const BASE = fixture("models/gemma2-tiny");
const LORA = fixture("models/gemma2-tiny-lora");

const before = process.env.HEDDLE_JIT;
afterAll(() => {
  if (before === undefined) delete process.env.HEDDLE_JIT;
  else process.env.HEDDLE_JIT = before;
});

/** Rows without padding, as a list of all their tokens. */
function rowsOf(ids_BT: tf.Tensor2D): Block {
  const [B, T] = ids_BT.shape;
  const slot_M = tf.range(0, B * T, 1, "int32");
  const positions_BT = tf.range(0, T, 1, "int32").reshape([1, T]).tile([B, 1]);
  return {
    ids_M: ids_BT.flatten() as tf.Tensor1D,
    positions_M: positions_BT.flatten() as tf.Tensor1D,
    segments_M: tf.zeros<tf.Rank.R1>([B * T], "int32"),
    layout: { token_BT: slot_M.reshape([B, T]), slot_M },
  };
}

type Hidden = (weights: Weights, config: ModelConfig, block: Block) => tf.Tensor2D;
const layerByLayer: Hidden = (weights, config, block) => forward(weights, config, block).hidden_MD;
const inOneLoop: Hidden = (weights, config, block) =>
  forwardInLoops(weights, config, block, null, [{ first: 0, count: config.numHiddenLayers }]);

describe("on the base, kept in bfloat16", () => {
  let model: LoadedModel;
  let weights: Weights;
  let golden: Record<string, tf.Tensor>;
  beforeAll(async () => {
    model = await loadModel(LORA, { storageOf: () => "bfloat16" });
    weights = readParameters(model.parameters);
    golden = await readGolden(LORA);
  });
  afterAll(() => {
    disposeModel(model);
    tf.dispose([weights, golden] as unknown as tf.TensorContainer);
  });

  test.each([
    ["layer by layer", "0", layerByLayer],
    ["with its layers in one loop", "0", inOneLoop],
    ["compiled with its layers in one loop", "1", inOneLoop],
  ])("%s, logits, loss and the gradient by every matrix are those of peft", (_, HEDDLE_JIT, hiddenOf) => {
    process.env.HEDDLE_JIT = HEDDLE_JIT;
    const { config } = model.folder;
    const ids_BT = golden.ids as tf.Tensor2D;
    const [B, T] = ids_BT.shape;
    const run = jit((of: Weights, ids: tf.Tensor2D) => {
      const names = Object.keys(of).filter(isLoraMatrix);
      const logitsOf = (at: Weights) => logits(at, config, hiddenOf(at, config, rowsOf(ids)));
      const lossOf = (at: Weights): tf.Scalar => {
        const logp = tf.logSoftmax(
          logitsOf(at)
            .reshape([B, T, -1])
            .slice([0, 0, 0], [B, T - 1, -1]),
        );
        return logp
          .mul(tf.oneHot(ids.slice([0, 1], [B, T - 1]), config.vocabSize))
          .sum(-1)
          .mean()
          .neg() as tf.Scalar;
      };
      const { value, grads } = tf.valueAndGrads((...at) =>
        lossOf({ ...of, ...Object.fromEntries(names.map((name, i) => [name, at[i]!])) }),
      )(names.map((name) => of[name]!));
      return { logits: logitsOf(of), value, grads: Object.fromEntries(names.map((name, i) => [name, grads[i]!])) };
    });
    const made = run(weights, ids_BT);
    expect(largestDifference(made.logits.reshape([B, T, -1]), golden.logits!)).toBeLessThan(2e-4);
    expect(Math.abs(made.value.dataSync()[0]! - golden.loss!.dataSync()[0]!)).toBeLessThan(1e-5);
    expect(Object.keys(made.grads)).toHaveLength(32);
    for (const [name, gradient] of Object.entries(made.grads)) {
      const expected = golden[`grad.${name}`]!;
      const largest = expected.abs().max().dataSync()[0]!;
      expect(largestDifference(gradient, expected) / largest, name).toBeLessThan(1e-3);
    }
    tf.dispose(made as unknown as tf.TensorContainer);
  });
});

describe("a model with an adapter", () => {
  test("is opened by the adapter's folder, whose base is beside it, or by both folders", async () => {
    const alone = await openModel(LORA);
    expect(alone.dir).toBe(join(LORA, "../gemma2-tiny"));
    expect(alone.adapter).toEqual(await openAdapter(LORA));
    expect((await openModel(BASE, {}, LORA)).adapter).toEqual(alone.adapter);
    expect((await openModel(BASE)).adapter).toBe(null);
  });

  test("says where it has looked for the base", async () => {
    const dir = await copyOf("models/gemma2-tiny-lora");
    const path = join(dir, "adapter_config.json");
    await setKeys(path, { base_model_name_or_path: "google/none" });
    await expect(openModel(dir)).rejects.toThrow(
      new ModelError(
        path,
        '"base_model_name_or_path" is "google/none", which is no model folder, seen from the adapter nor from here: ' +
          "give the model folder and the adapter each by itself, or: heddle pull google/none --out google/none",
      ),
    );
    await setKeys(path, { revision: "v1.0" });
    await expect(openModel(dir)).rejects.toThrow("by itself, or: heddle pull google/none@v1.0 --out google/none");
    await setKeys(path, { base_model_name_or_path: null });
    await expect(openModel(dir)).rejects.toThrow(
      new ModelError(path, 'names no "base_model_name_or_path": give the model folder and the adapter each by itself'),
    );
    await expect(openModel(dir, {}, LORA)).rejects.toThrow(
      new ModelError(dir, `is an adapter itself, expected the model folder that the adapter ${LORA} is for`),
    );
  });

  test("must be one of the adapter's shapes", async () => {
    const teacher = fixture("arithmetic/teacher");
    const file = join(LORA, "adapter_model.safetensors");
    await expect(openModel(teacher, {}, LORA)).rejects.toThrow(
      `${file}: "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight" of shape [48,8] times ` +
        '"base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight" of shape [8,64] does not fit ' +
        '"model.layers.0.self_attn.k_proj.weight" of shape [',
    );
    const dir = await copyOf("models/gemma2-tiny");
    await setKeys(join(dir, "config.json"), { num_hidden_layers: 2 });
    await expect(openModel(dir, {}, LORA)).rejects.toThrow(
      new ModelError(
        file,
        `is for a model with a tensor "model.layers.2.self_attn.k_proj.weight", which ${dir} has not: an adapter for another base?`,
      ),
    );
  });

  test("becomes part of the weights, also of those that are quantised then", async () => {
    const [beside, merged, packed] = [
      await loadModel(LORA),
      await loadModel(LORA, { mergesAdapter: true }),
      await loadModel(LORA, { mergesAdapter: true, storageOf: (name) => (name.includes("_proj") ? "nf4" : "float32") }),
    ];
    expect(Object.keys(merged.parameters).filter(isLoraMatrix)).toEqual([]);
    const base = await loadModel(BASE);
    const expected = mergedTensors(base.folder.config, beside.parameters);
    let changed = 0;
    for (const [name, variable] of Object.entries(merged.parameters)) {
      const [got, values] = [downloadTensor(variable), expected[name]!.values];
      expect(Math.max(...got.map((x, i) => Math.abs(x - values[i]!)))).toBeLessThan(1e-6);
      const before = downloadTensor(base.parameters[name]!);
      if (got.some((x, i) => Math.abs(x - before[i]!) > 1e-4)) changed++;
      const codes = packed.parameters[`${name}.codes`];
      if (codes === undefined) continue;
      const bytes = tf.tidy(() => new Uint8Array((codes.read().dataSync() as Int32Array).buffer));
      expect(bytes).toEqual(quantiseNf4(got).codes);
    }
    expect(changed).toBe(16);
    for (const model of [beside, merged, packed, base]) disposeModel(model);
  });

  test("becomes part of no base that is in 4 bits", async () => {
    const adapter = await copyOf("models/gemma2-tiny-lora");
    const base = fixture("models/gemma3-tiny-nf4");
    await setKeys(join(adapter, "adapter_config.json"), { base_model_name_or_path: base });
    const shapes = { a: [8, 64], b: [128, 8] };
    const [a, b] = (["a", "b"] as const).map((part) => ({
      name: `base_model.model.model.layers.0.mlp.gate_proj.lora_${part.toUpperCase()}.weight`,
      dtype: "F32" as const,
      shape: shapes[part],
      data: new Uint8Array(4 * shapes[part][0]! * shapes[part][1]!),
    }));
    await writeSafetensors(join(adapter, "adapter_model.safetensors"), [a!, b!]);
    await expect(loadModel(adapter, { mergesAdapter: true })).rejects.toThrow(
      `${base}: tensor "model.layers.0.mlp.gate_proj.weight" is in 4 bits, which no adapter becomes part of: ` +
        "expected a base in bfloat16 or float32, which load_in_4bit quantises",
    );
    disposeModel(await loadModel(adapter));
  });

  /** An adapter of one tensor, all zeros. */
  async function adapterOf(name: string, shape: readonly number[], config: object = {}): Promise<string> {
    const dir = await copyOf("models/gemma2-tiny-lora");
    const data = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1));
    const tensor = { name: `base_model.model.${name}`, dtype: "F32", shape, data } as const;
    await writeSafetensors(join(dir, "adapter_model.safetensors"), [tensor]);
    await setKeys(join(dir, "adapter_config.json"), { base_model_name_or_path: BASE, ...config });
    return dir;
  }

  test("takes what the adapter stores whole, the embedding only where it stays tied to the head", async () => {
    const name = "model.embed_tokens.weight";
    const loose = await adapterOf(name, [384, 64]);
    await expect(openModel(loose)).rejects.toThrow(
      new ModelError(
        join(loose, "adapter_model.safetensors"),
        `stores "${name}" whole, and "ensure_weight_tying" is not true: the head would keep the base's embedding, which is not supported`,
      ),
    );
    const model = await loadModel(await adapterOf(name, [384, 64], { ensure_weight_tying: true }));
    expect(tf.tidy(() => model.parameters[name]!.read().abs().max().dataSync()[0])).toBe(0);
    disposeModel(model);
  });
});
