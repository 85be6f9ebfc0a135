/** Training an adapter: what learns, its gradient, dropout, resuming, and what is stored. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { distill } from "../../distill/distill.js";
import { type EncodedRow, encodePrompts } from "../../distill/encode.js";
import { type SftSettings, sft } from "../../distill/sft.js";
import { baseAsTeacher, closeTeacher, openTeacher } from "../../distill/targets.js";
import { saveStageAdapter, saveStageModel } from "../../distill/training.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { isLoraMatrix, type LoraSettings, loraShapes, savedWeights } from "../../model/lora.js";
import { disposeParameters, downloadTensor } from "../../model/parameters.js";
import { quantisedIn } from "../../model/weights.js";
import { createAdapter } from "../../student/lora.js";
import { loadTrainingState } from "../../student/training-state.js";
import { fixture } from "../model/golden.js";
import { newFolder, stageContext, stopped, training } from "./stage.js";

const dir = fixture("arithmetic/student");
const lora: LoraSettings = {
  r: 2,
  lora_alpha: 6,
  lora_dropout: 0,
  target_modules: ["q_proj", "mlp.down_proj"],
  use_rslora: false,
  modules_to_save: [],
};
const settings = { ...training, steps: 3, batch_size: 2, lora };

let base: LoadedModel;
let rows: EncodedRow[];
beforeAll(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  base = await loadModel(dir);
  const data = [
    { prompt: "1+2=", completion: "3" },
    { prompt: "(10*10)/100=", completion: "123456" },
  ];
  rows = await encodePrompts(base.folder, data, { system: "error", maxNewTokens: settings.max_new_tokens });
});
afterAll(() => {
  disposeModel(base);
  vi.unstubAllEnvs();
});

/** The base with a new adapter, whose seeds are the lengths of names. */
const adapted = (of: Partial<LoraSettings> = {}): LoadedModel => ({
  folder: base.folder,
  parameters: {
    ...base.parameters,
    ...createAdapter(base.folder.config, { ...lora, ...of }, (name) => name.length),
  },
});

const values = ({ parameters }: LoadedModel) =>
  Object.fromEntries(Object.entries(parameters).map(([name, variable]) => [name, [...downloadTensor(variable)]]));

/** The tensors' bits, in short. */
const bits = ({ parameters }: LoadedModel) =>
  Object.fromEntries(
    Object.entries(parameters).map(([name, variable]) => [
      name,
      createHash("sha256").update(downloadTensor(variable)).digest("hex"),
    ]),
  );

const loraNamesOf = ({ parameters }: LoadedModel) => Object.keys(parameters).filter(isLoraMatrix);

/** The first step's loss, and what it leaves of AdamW's first moments. */
async function firstStep(model: LoadedModel, changes: Partial<SftSettings> = {}) {
  const folder = await newFolder();
  const { context, log } = stageContext(folder, { stopAfter: 1 });
  await expect(sft(model, rows, { ...settings, learning_rate: 0, ...changes }, context)).rejects.toBe(stopped);
  const names = loraNamesOf(model);
  const shapes = Object.fromEntries(names.map((name) => [name, model.parameters[name]!.shape]));
  return { loss: log[0]!.loss!, m: (await loadTrainingState(folder, shapes))!.m };
}

describe("an adapter", () => {
  test("begins with A uniform within 1/sqrt(in), B zero, and the scale alpha / r or alpha / sqrt(r)", () => {
    const model = adapted({ r: 8 });
    expect(Object.fromEntries(loraNamesOf(model).map((name) => [name, model.parameters[name]!.shape]))).toEqual(
      loraShapes(base.folder.config, { ...lora, r: 8 }),
    );
    const made = values(model);
    const A = made["model.layers.0.mlp.down_proj.lora_A.weight"]!;
    const bound = 1 / Math.sqrt(A.length / 8);
    expect(Math.max(...A.map(Math.abs))).toBeLessThanOrEqual(bound);
    // The variance of a uniform number within -bound and bound is bound^2 / 3.
    expect((3 * A.reduce((sum, x) => sum + x * x, 0)) / A.length / bound ** 2).toBeCloseTo(1, 1);
    expect(new Set(made["model.layers.0.mlp.down_proj.lora_B.weight"])).toEqual(new Set([0]));
    expect(made["model.layers.1.self_attn.q_proj.lora_scale.weight"]).toEqual([0.75]);
    const stable = values(adapted({ use_rslora: true }));
    expect(stable["model.layers.1.self_attn.q_proj.lora_scale.weight"]![0]).toBeCloseTo(6 / Math.SQRT2, 6);
  });

  test("needs targets that exist", () => {
    const { config } = base.folder;
    expect(() => loraShapes(config, { ...lora, target_modules: ["q_proj", "proj"] })).toThrow(
      'lora.target_modules: no module\'s name ends with "proj", expected some of down_proj, gate_proj, up_proj, ' +
        "k_proj, o_proj, q_proj, v_proj",
    );
    expect(() => savedWeights(Object.keys(base.parameters), { ...lora, modules_to_save: ["lm_head"] })).toThrow(
      'lora.modules_to_save: no module\'s name ends with "lm_head", expected some of embed_tokens, input_layernorm, ' +
        "post_attention_layernorm, post_feedforward_layernorm, pre_feedforward_layernorm, norm",
    );
  });

  test("changes nothing at first; its gradient is that of finite differences, in loops too", async () => {
    const model = adapted();
    const { loss, m } = await firstStep(model);
    const full = await stageOfBase();
    expect(loss).toBe(full);
    const name = "model.layers.1.self_attn.q_proj.lora_B.weight";
    const variable = model.parameters[name]!;
    const at = async (x: number) => {
      const B = new Float32Array(downloadTensor(variable).length);
      B[3] = x;
      tf.tidy(() => variable.assign(tf.tensor(B, [...variable.shape])));
      return (await firstStep(model)).loss;
    };
    const slope = ((await at(0.05)) - (await at(-0.05))) / 0.1;
    await at(0);
    expect(m[name]!.values[3]! / 0.1 / slope).toBeCloseTo(1, 2);
    const inLoops = await firstStep(model, { gradient_checkpointing: true });
    for (const key of Object.keys(m)) {
      const largest = Math.max(...m[key]!.values.map(Math.abs));
      m[key]!.values.forEach((x, i) => {
        expect(Math.abs(x - inLoops.m[key]!.values[i]!)).toBeLessThanOrEqual(1e-4 * largest);
      });
    }
  });

  /** The loss of the model that has no adapter. */
  async function stageOfBase(): Promise<number> {
    const { context, log } = stageContext(await newFolder(), { stopAfter: 1 });
    const without = { ...settings, lora: null, trainable: ["^model\\.norm"], learning_rate: 0 };
    await expect(sft(base, rows, without, context)).rejects.toBe(stopped);
    return log[0]!.loss!;
  }

  test("with dropout a resumed run ends with the bits of one that was not stopped; the base stays as it was", async () => {
    const dropping = { ...settings, lora: { ...lora, lora_dropout: 0.3 } };
    const before = bits(base);
    const whole = adapted();
    const unbroken = stageContext(await newFolder());
    await sft(whole, rows, dropping, unbroken.context);
    const folder = await newFolder();
    await expect(sft(adapted(), rows, dropping, stageContext(folder, { stopAfter: 1 }).context)).rejects.toBe(stopped);
    const resumed = adapted();
    await sft(resumed, rows, dropping, stageContext(folder).context);
    expect(bits(resumed)).toEqual(bits(whole));
    expect(bits(base)).toEqual(before);
    expect(bits(whole)).not.toEqual(bits(adapted()));
    // Other inputs drop out at the second step; without dropout there is another loss from the second step on.
    const plain = stageContext(await newFolder());
    await sft(adapted(), rows, settings, plain.context);
    expect(plain.log[1]!.loss).not.toBe(unbroken.log[1]!.loss);
  });

  test("is stored as PEFT stores it, and part of the weights where the model is", async () => {
    const saving = { ...settings, lora: { ...lora, lora_alpha: 3, modules_to_save: ["embed_tokens"] } };
    const own = await loadModel(dir);
    const model = { folder: own.folder, parameters: { ...own.parameters, ...adapted(saving.lora).parameters } };
    model.parameters["model.embed_tokens.weight"] = own.parameters["model.embed_tokens.weight"]!;
    await sft(model, rows, saving, stageContext(await newFolder()).context);
    const [adapter, merged] = [await newFolder(), await newFolder()];
    await saveStageAdapter(adapter, model, saving.lora, { name: dir, revision: "v1" });
    expect(JSON.parse(await readFile(join(adapter, "adapter_config.json"), "utf8"))).toEqual({
      peft_type: "LORA",
      task_type: "CAUSAL_LM",
      base_model_name_or_path: dir,
      revision: "v1",
      inference_mode: true,
      r: 2,
      lora_alpha: 3,
      lora_dropout: 0,
      target_modules: ["q_proj", "mlp.down_proj"],
      use_rslora: false,
      modules_to_save: ["embed_tokens"],
      bias: "none",
      fan_in_fan_out: false,
      init_lora_weights: true,
      use_dora: false,
      rank_pattern: {},
      alpha_pattern: {},
      ensure_weight_tying: true,
    });
    const again = await loadModel(adapter);
    expect(bits(again)).toEqual(bits(model));
    expect(again.folder.tokenizer).not.toBe(null);
    await saveStageModel(merged, model);
    const whole = values(await loadModel(merged));
    const name = "model.layers.0.self_attn.q_proj";
    const made = values(model);
    const [A, B, W] = ["lora_A.weight", "lora_B.weight", "weight"].map((part) => made[`${name}.${part}`]!);
    const columns = A!.length / 2;
    const [row, column] = [5, 7];
    const change = 1.5 * (B![2 * row]! * A![column]! + B![2 * row + 1]! * A![columns + column]!);
    expect(Math.abs(change)).toBeGreaterThan(1e-6);
    expect(whole[`${name}.weight`]![row * columns + column]).toBeCloseTo(W![row * columns + column]! + change, 6);
    for (const { parameters } of [again, own]) disposeParameters(parameters);
  });

  test("on a base in int8 learns from that base, whose logits are its own at first", async () => {
    const quantised = await loadModel(dir, { storageOf: quantisedIn("int8") });
    const adapter = createAdapter(quantised.folder.config, lora, (name) => name.length);
    const model = { folder: quantised.folder, parameters: { ...quantised.parameters, ...adapter } };
    const { context, log } = stageContext(await newFolder());
    const distilling = { ...settings, steps: 1, beta: 0, lmbda: 0, seq_kd: false, temperature: 1 };
    const loss = { loss_temperature: 1, loss_top_k: 0, loss_add_tail: true };
    await distill(model, await baseAsTeacher(model, "float32"), rows, { ...distilling, ...loss }, context);
    expect(log[0]!.loss).toBe(0);
    disposeModel(model);
  });

  test("another adapter on its base is a teacher that shares that base, with the scores of one that does not", async () => {
    const other = await newFolder();
    const trained = adapted({ r: 3 });
    await sft(
      trained,
      rows,
      { ...settings, lora: { ...lora, r: 3 }, learning_rate: 0.05 },
      stageContext(other).context,
    );
    const folder = await newFolder();
    await saveStageAdapter(folder, trained, { ...lora, r: 3 }, { name: dir, revision: null });
    const losses: number[] = [];
    const shared = await baseAsTeacher(adapted(), "float32", folder);
    const apart = await openTeacher(folder, base.folder, { dtype: "float32", onRetry: () => {} });
    for (const teacher of [shared, apart]) {
      const { context, log } = stageContext(await newFolder());
      const distilling = { ...settings, steps: 1, beta: 0, lmbda: 0, seq_kd: false, temperature: 1 };
      const loss = { loss_temperature: 1, loss_top_k: 0, loss_add_tail: true };
      await distill(adapted(), teacher, rows, { ...distilling, ...loss }, context);
      losses.push(log[0]!.loss!);
    }
    expect(losses[0]).toBe(losses[1]);
    expect(losses[0]).toBeGreaterThan(1e-3);
    if (shared.kind !== "local") throw new Error("a teacher of this process");
    const name = "model.layers.0.mlp.up_proj.weight";
    expect(shared.model.parameters[name]).toBe(base.parameters[name]);
    expect(new Set(Object.keys(shared.own!))).toEqual(
      new Set(Object.keys(trained.parameters).filter((key) => key.includes(".lora_"))),
    );
    await closeTeacher(shared);
    await closeTeacher(apart);
    expect(Object.values(base.parameters).some(({ isDisposed }) => isDisposed)).toBe(false);
    expect(Object.values(shared.own!).every(({ isDisposed }) => isDisposed)).toBe(true);
  });

  test("its base is its own teacher in one copy", async () => {
    const model = adapted();
    const teacher = await baseAsTeacher(model, "float32");
    if (teacher.kind !== "local") throw new Error("a teacher of this process");
    expect(Object.keys(teacher.model.parameters)).toEqual(Object.keys(base.parameters));
    for (const [name, variable] of Object.entries(teacher.model.parameters)) {
      expect(variable).toBe(base.parameters[name]);
    }
    await closeTeacher(teacher);
    expect(Object.values(base.parameters).some(({ isDisposed }) => isDisposed)).toBe(false);
  });
});
