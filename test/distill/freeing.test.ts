/** A stage that ends with an error frees what it had: a script that imports heddle goes on. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { distill } from "../../distill/distill.js";
import { type EncodedRow, encodePrompts } from "../../distill/encode.js";
import { rl } from "../../distill/rl.js";
import { sft } from "../../distill/sft.js";
import type { StageContext } from "../../distill/training.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { fixture } from "../model/golden.js";
import { remoteTeacher } from "./fake-teacher.js";
import { expectAllFreed, newFolder, oneLayer, stageContext, training } from "./stage.js";

const broken = new Error("broken");
const settings = { ...training, steps: 2, batch_size: 2, gradient_accumulation_steps: 2 };

let whole: LoadedModel;
let model: LoadedModel;
let rows: EncodedRow[];
beforeAll(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  whole = await loadModel(fixture("arithmetic/student"));
  model = oneLayer(whole);
  const data = [
    { prompt: "1+2=", completion: "3", answer: "3" },
    { prompt: "2+2=", completion: "4", answer: "4" },
  ];
  rows = await encodePrompts(model.folder, data, { system: "error", maxNewTokens: settings.max_new_tokens });
});
afterAll(() => {
  disposeModel(whole);
  vi.unstubAllEnvs();
});

/** Runs a stage that fails by `broken`. */
async function expectFreed(stage: (context: StageContext) => Promise<void>, changes: Partial<StageContext> = {}) {
  const { context } = stageContext(await newFolder());
  const failing = () => expect(stage({ ...context, ...changes })).rejects.toBe(broken);
  await expectAllFreed(failing, whole.parameters);
}

const afterAStep: Partial<StageContext> = {
  onStep: () => {
    throw broken;
  },
};

test("sft, between two steps", () => expectFreed((context) => sft(model, rows, settings, context), afterAStep));

test("rl, between two steps", () => {
  const own = { prompts: 2, samples: 2, beta_kl: "0.1 * step", mu: 0.5, temperature: 0.7 };
  return expectFreed((context) => rl(model, "exact_match", rows, { ...settings, ...own }, context), afterAStep);
});

test("distil, whose teacher fails within a step, at the second of its parts", async () => {
  const { teacher } = remoteTeacher(whole);
  const { score } = teacher.client;
  teacher.client.score = vi.fn(score).mockImplementationOnce(score).mockRejectedValueOnce(broken);
  const schedules = { beta: 0.5, temperature: 1, loss_temperature: 1, lmbda: 1 };
  const own = { seq_kd: false, loss_top_k: 4, loss_add_tail: true };
  await expectFreed((context) => distill(model, teacher, rows, { ...settings, ...schedules, ...own }, context));
  expect(teacher.client.score).toHaveBeenCalledTimes(2);
});
