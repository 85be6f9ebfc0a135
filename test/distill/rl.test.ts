/**
 * RL against its formulas, computed for each completion alone: REINFORCE with a leave-one-out baseline on
 * r - beta_kl (ln pi - ln pi_anchor), and the anchor's moving average.
 */
import { tf } from "tfjs-jit";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { deriveSeed, planBatch } from "../../distill/batches.js";
import { place } from "../../distill/data.js";
import { type EncodedRow, encodePrompts } from "../../distill/encode.js";
import { type RlSettings, rl } from "../../distill/rl.js";
import { decodeAll, rollOut } from "../../distill/rollouts.js";
import { sizesOf } from "../../model/batch.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { type HostTensors, uploadParameters } from "../../model/parameters.js";
import type { TrainingState } from "../../student/training-state.js";
import { completionLogitsAlone, gradients, largestRelativeDifference } from "../model/alone.js";
import { fixture } from "../model/golden.js";
import { newFolder, oneLayer, stageContext, stateIn, stopped, toDevice, training } from "./stage.js";

const settings: RlSettings = {
  ...training,
  steps: 5,
  save_every: 1000,
  prompts: 2,
  samples: 3,
  beta_kl: 0.5,
  mu: 0.25,
  // Large, so that the policy leaves its anchor in one step.
  learning_rate: 5e-3,
  temperature: 1,
};

let model: LoadedModel;
beforeEach(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  model = await loadModel(fixture("arithmetic/student"));
});
afterEach(() => {
  disposeModel(model);
  vi.unstubAllEnvs();
});

/** What a step's samples depend on. */
type Sampling = { temperature: number; max_new_tokens: number };

/** Two rows, whose answers are what the policy samples first for each in step 1: some rewards are 1, some 0. */
async function rowsFor(policy: LoadedModel, sampling: Sampling): Promise<EncodedRow[]> {
  const data = [{ prompt: "1+2=" }, { prompt: "(10*10)/100=" }];
  const rows = await encodePrompts(policy.folder, data, { system: "error", maxNewTokens: sampling.max_new_tokens });
  const { picked, texts } = await sampled(policy, rows, 1, sampling);
  return picked
    .map((row, i) => ({ ...row, row: { ...row.row, answer: texts[i * settings.samples]! } }))
    .sort((a, b) => a.prompt.length - b.prompt.length);
}

/** What a policy samples in a step. */
async function sampled(policy: LoadedModel, rows: EncodedRow[], step: number, sampling: Sampling) {
  const { seed, stage } = stageContext("").context;
  const picked = planBatch({ seed, stage, step, rows: 2, size: 2 }).map((i) => rows[i]!);
  const prompts = picked.map(({ prompt }) => prompt);
  const sizes = sizesOf(prompts, { rows: 2, samples: 3, maxNewTokens: sampling.max_new_tokens });
  const options = { temperature: sampling.temperature, seed: deriveSeed(seed, stage, "sample", step) };
  const { completions } = rollOut(policy, prompts, sizes, options);
  return { picked, completions, texts: await decodeAll(policy.folder, completions) };
}

/** The step of a policy, which is put into `model`, and its anchor, by the formulas. */
async function stepByFormula(
  rows: EncodedRow[],
  step: number,
  policy: HostTensors,
  anchor: HostTensors,
  sampling: Sampling,
) {
  uploadParameters(model.parameters, policy);
  const { picked, completions, texts } = await sampled(model, rows, step, sampling);
  const G = settings.samples;
  const lnPi = (weights: Record<string, tf.Tensor>, c: number): tf.Scalar => {
    const { ids } = completions[c]!;
    const logits_nV = completionLogitsAlone(weights, model.folder.config, picked[Math.floor(c / G)]!.prompt, ids);
    return tf
      .logSoftmax(logits_nV.div(sampling.temperature))
      .mul(tf.oneHot(tf.tensor1d(ids, "int32"), 384))
      .sum();
  };
  const all = (weights: Record<string, tf.Tensor>) =>
    completions.map((_, c) => tf.tidy(() => lnPi(weights, c).dataSync()[0]!));
  const [policyNow, anchorNow] = [toDevice(policy), toDevice(anchor)];
  const [ofPolicy, ofAnchor] = [all(policyNow), all(anchorNow)];

  const rewards: number[] = texts.map((text, c) => (text === picked[Math.floor(c / G)]!.row.answer ? 1 : 0));
  const kls = ofPolicy.map((x, c) => x - ofAnchor[c]!);
  const totals = rewards.map((reward, c) => reward - 0.5 * kls[c]!);
  const advantages = totals.map((total, c) => {
    const others = [0, 1, 2].map((g) => Math.floor(c / G) * G + g).filter((other) => other !== c);
    return total - (totals[others[0]!]! + totals[others[1]!]!) / 2;
  });
  const lossOf = (weights: Record<string, tf.Tensor>): tf.Scalar =>
    tf.addN(completions.map((_, c) => lnPi(weights, c).mul(advantages[c]!))).div(-6);
  const grads = gradients(policyNow, lossOf);
  const mean = (xs: number[]) => xs.reduce((a, b) => a + b) / xs.length;
  const expected = {
    loss: tf.tidy(() => lossOf(policyNow).dataSync()[0]!),
    reward: mean(rewards),
    kl: mean(kls),
    grad_norm: Math.sqrt(Object.values(grads).reduce((sum, g) => sum + g.square().sum().dataSync()[0]!, 0)),
    completion_length: mean(completions.map(({ ids }) => ids.length)),
  };
  tf.dispose([policyNow, anchorNow] as tf.TensorContainer);
  return { expected, grads };
}

/** Largest |a - b| over all numbers of all tensors. */
function largestGap(a: HostTensors, b: (name: string, i: number) => number): number {
  let largest = 0;
  for (const [name, { values }] of Object.entries(a))
    values.forEach((x, i) => {
      largest = Math.max(largest, Math.abs(x - b(name, i)));
    });
  return largest;
}

/** The anchor after a step: ema + mu (policy - ema), by the policy after the step. */
function expectAnchor(before: HostTensors, after: TrainingState): void {
  const gap = largestGap(after.extra, (name, i) => {
    const ema = before[name]!.values[i]!;
    return ema + 0.25 * (after.parameters[name]!.values[i]! - ema);
  });
  expect(gap).toBeLessThan(1e-6);
  expect(largestGap(after.extra, (name, i) => before[name]!.values[i]!)).toBeGreaterThan(1e-4);
}

const initial = (): HostTensors =>
  Object.fromEntries(
    Object.entries(model.parameters).map(([name, variable]) => {
      const values = tf.tidy(() => variable.read().dataSync().slice() as Float32Array);
      return [name, { shape: variable.shape, values }];
    }),
  );

describe("two steps follow the formulas", () => {
  test.each([1, 0.7])("at temperature %d", async (temperature) => {
    const init = initial();
    const sampling = { temperature, max_new_tokens: 5 };
    const rows = await rowsFor(model, sampling);
    const dir = await newFolder();
    const run = async (stopAfter: number) => {
      const { context, log } = stageContext(dir, { stopAfter });
      await expect(rl(model, "exact_match", rows, { ...settings, ...sampling }, context)).rejects.toBe(stopped);
      return { metrics: log.at(-1), state: await stateIn(dir, model) };
    };
    const first = await run(1);
    const second = await run(2); // goes on from the state of the first

    const [one, two] = [
      await stepByFormula(rows, 1, init, init, sampling),
      await stepByFormula(rows, 2, first.state.parameters, first.state.extra, sampling),
    ];
    for (const [{ metrics }, { expected }] of [
      [first, one],
      [second, two],
    ] as const)
      expect(metrics).toEqual({
        step: expect.any(Number),
        loss: expect.closeTo(expected.loss, 3),
        reward: expected.reward,
        kl: expect.closeTo(expected.kl, 3),
        learning_rate: 5e-3,
        grad_norm: expect.closeTo(expected.grad_norm, 2),
        completion_length: expected.completion_length,
        tokens_per_second: expect.any(Number),
      });
    expect(one.expected.kl).toBe(0);
    expect(one.expected.reward).toBeGreaterThan(0);
    expect(one.expected.reward).toBeLessThan(1);
    expect(Math.abs(two.expected.kl)).toBeGreaterThan(0.01);

    // AdamW's first moment: a tenth of the first gradient, then 0.9 of that and a tenth of the second.
    const m = [toDevice(first.state.m), toDevice(second.state.m)] as const;
    const sum = (f: (name: string) => tf.Tensor) =>
      Object.fromEntries(Object.keys(init).map((name) => [name, f(name)]));
    tf.tidy(() => {
      expect(
        largestRelativeDifference(
          m[0],
          sum((name) => one.grads[name]!.mul(0.1)),
        ),
      ).toBeLessThan(1e-3);
      const after = sum((name) => m[0][name]!.mul(0.9).add(two.grads[name]!.mul(0.1)));
      expect(largestRelativeDifference(m[1], after)).toBeLessThan(1e-3);
    });
    expectAnchor(init, first.state);
    expectAnchor(first.state.extra, second.state);
    tf.dispose([m, one.grads, two.grads] as unknown as tf.TensorContainer);
  });
});

test("a run that was stopped and started again has the bits of one that was not; compiled, it takes the same steps", async () => {
  const init = initial();
  const small = oneLayer(model);
  // Completions of one token: batches of one shape, one program.
  const short = { ...settings, temperature: 1, max_new_tokens: 1 };
  const rows = await rowsFor(small, short);
  const stateAfter = async (stops: number[]) => {
    uploadParameters(model.parameters, init);
    const dir = await newFolder();
    for (const stopAfter of stops)
      await expect(rl(small, "exact_match", rows, short, stageContext(dir, { stopAfter }).context)).rejects.toBe(
        stopped,
      );
    return stateIn(dir, small);
  };
  const eager = await stateAfter([1]);
  vi.unstubAllEnvs();
  const [once, first, twice] = [await stateAfter([2]), await stateAfter([1]), await stateAfter([1, 2])];

  for (const group of ["parameters", "m", "v", "extra"] as const)
    for (const [name, { values }] of Object.entries(twice[group]))
      expect(Buffer.compare(bytes(values), bytes(once[group][name]!.values)), `${group} ${name}`).toBe(0);
  const [m, expected] = [toDevice(first.m), toDevice(eager.m)];
  expect(largestRelativeDifference(m, expected)).toBeLessThan(1e-3);
  expectAnchor(init, first);
});
const bytes = ({ buffer, byteOffset, byteLength }: Float32Array) => Buffer.from(buffer, byteOffset, byteLength);

test("a row without an answer is refused before the first step, by its place", async () => {
  const rows = await rowsFor(model, { temperature: 1, max_new_tokens: 1 });
  const { context, log } = stageContext(await newFolder());
  const row = { prompt: "1+3=", [place]: "train.jsonl:2" };
  await expect(
    rl(model, "exact_match", [rows[0]!, { row, prompt: [2], read: { system: "error" } }], settings, context),
  ).rejects.toThrow(
    expect.objectContaining({
      name: "DataError",
      message: "train.jsonl:2: answer: expected the text to match, got none",
    }),
  );
  expect(log).toEqual([]);
});

test("leaves no tensor behind", async () => {
  const small = oneLayer(model);
  const rows = await rowsFor(small, { temperature: 1, max_new_tokens: 5 });
  const before = tf.memory().numTensors;
  await rl(small, "exact_match", rows, { ...settings, steps: 2 }, stageContext(await newFolder()).context);
  expect(tf.memory().numTensors).toBe(before);
});
