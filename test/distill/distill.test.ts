/** Distillation: which completions a step learns from, and its loss and gradient by forward passes over each alone. */
import { tf } from "tfjs-jit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { deriveSeed, planBatch } from "../../distill/batches.js";
import { type DistillSettings, distill } from "../../distill/distill.js";
import { type EncodedRow, encodeCompletions, encodePrompts } from "../../distill/encode.js";
import { rollOut } from "../../distill/rollouts.js";
import type { Teacher } from "../../distill/targets.js";
import { sizesOf } from "../../model/batch.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import {
  completionLogitsAlone,
  completionLogprobsAlone,
  gradients,
  largestRelativeDifference,
} from "../model/alone.js";
import { fixture } from "../model/golden.js";
import { remoteTeacher } from "./fake-teacher.js";
import { newFolder, oneLayer, stageContext, stateIn, stopped, toDevice, training } from "./stage.js";

const settings: DistillSettings = {
  ...training,
  steps: 2,
  batch_size: 3,
  beta: 1,
  lmbda: 1,
  seq_kd: false,
  temperature: 1,
  loss_temperature: 1,
  loss_top_k: 0,
  loss_add_tail: false,
};
/** Nothing is learnt: all steps are of the same student. */
const still = { ...settings, learning_rate: 0 };

let teacherModel: LoadedModel;
let teacher: Teacher;
let student: LoadedModel;
let rows: EncodedRow[];
beforeAll(async () => {
  teacherModel = await loadModel(fixture("arithmetic/teacher"));
  teacher = { kind: "local", model: teacherModel };
  const data = [
    { prompt: "1+2=", completion: "3" },
    { prompt: "(10*10)/100=", completion: "1" },
    { prompt: "12*12=", completion: "144" },
    { prompt: "7-9=", completion: "-2" },
  ];
  rows = await encodePrompts(teacherModel.folder, data, { system: "error", maxNewTokens: 5 });
});
afterAll(() => disposeModel(teacherModel));
beforeEach(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  student = await loadModel(fixture("arithmetic/student"));
});
afterEach(() => {
  disposeModel(student);
  vi.unstubAllEnvs();
});

const pickedAt = (step: number): EncodedRow[] =>
  planBatch({ seed: 7, stage: "test", step, rows: rows.length, size: 3 }).map((i) => rows[i]!);

/** What a model samples for the rows of a step. */
function samplesOf(author: LoadedModel, step: number, temperature: number): number[][] {
  const sizes = sizesOf(
    rows.map(({ prompt }) => prompt),
    { rows: 3, samples: 1, maxNewTokens: 5 },
  );
  const prompts = pickedAt(step).map(({ prompt }) => prompt);
  const seed = deriveSeed(7, "test", "sample", step);
  return rollOut(author, prompts, sizes, { temperature, seed }).completions.map(({ ids }) => ids);
}

const sum = (xs: number[]): number => xs.reduce((a, b) => a + b, 0);

/** Mean over all tokens of KL(student || teacher), in float64, and the mean length of the completions. */
function expectedMetrics(step: number, completions: number[][]): { loss: number; completion_length: number } {
  const [q, p] = [student, teacherModel].map(({ parameters }) => readParameters(parameters));
  const kls = completions.flatMap((ids, c) => {
    const { prompt } = pickedAt(step)[c]!;
    const logq = completionLogprobsAlone(q!, student.folder.config, prompt, ids);
    const logp = completionLogprobsAlone(p!, teacherModel.folder.config, prompt, ids);
    return logq.map((row, n) => sum(row.map((x, v) => Math.exp(x) * (x - logp[n]![v]!))));
  });
  tf.dispose([q, p] as tf.TensorContainer);
  return { loss: sum(kls) / kls.length, completion_length: kls.length / 3 };
}

async function logOf(changes: Partial<DistillSettings>, of = teacher) {
  const { context, log } = stageContext(await newFolder());
  await distill(student, of, rows, { ...still, ...changes }, context);
  return log;
}

describe("a step learns from", () => {
  /** Checks both steps' losses, each by the completions that it must have learnt from. */
  async function expectLearntFrom(changes: Partial<DistillSettings>, completions: number[][][]): Promise<void> {
    const log = await logOf(changes);
    const expected = completions.map((of, i) => expectedMetrics(i + 1, of));
    expect(log.length).toBe(2);
    log.forEach(({ loss, completion_length }, i) => {
      expect(completion_length).toBeCloseTo(expected[i]!.completion_length, 10);
      expect(Math.abs(loss! / expected[i]!.loss - 1), `step ${i + 1}`).toBeLessThan(1e-4);
    });
  }

  test("the student's samples where lmbda is 1", () =>
    expectLearntFrom({ temperature: 3 }, [samplesOf(student, 1, 3), samplesOf(student, 2, 3)]));

  test("the data every other time where lmbda is 0.5", async () => {
    const ofData = await encodeCompletions(student.folder, pickedAt(1), 5);
    await expectLearntFrom({ lmbda: 0.5 }, [ofData, samplesOf(student, 2, 1)]);
  });

  test("the teacher's samples instead of the data with seq_kd", () =>
    expectLearntFrom({ lmbda: 0.5, seq_kd: true }, [samplesOf(teacherModel, 1, 1), samplesOf(student, 2, 1)]));
});

test("a step's gradient is that of the mean KL(student || teacher), the samples held fixed", async () => {
  const completions = samplesOf(student, 1, 1);
  const before = readParameters(student.parameters);
  const fixed = readParameters(teacherModel.parameters);
  const lossOf = (weights: Record<string, tf.Tensor>): tf.Scalar =>
    tf
      .addN(
        completions.map((ids, c) => {
          const { prompt } = pickedAt(1)[c]!;
          const logq_nV = tf.logSoftmax(completionLogitsAlone(weights, student.folder.config, prompt, ids));
          const logp_nV = tf.logSoftmax(completionLogitsAlone(fixed, teacherModel.folder.config, prompt, ids));
          return logq_nV.exp().mul(logq_nV.sub(logp_nV)).sum();
        }),
      )
      .div(completions.flat().length);
  const grads = gradients(before, lossOf);

  const dir = await newFolder();
  const { context, log } = stageContext(dir, { stopAfter: 1 });
  await expect(distill(student, teacher, rows, settings, context)).rejects.toBe(stopped);
  const norm = Math.sqrt(sum(Object.values(grads).map((g) => g.square().sum().dataSync()[0]!)));
  expect(Math.abs(log[0]!.grad_norm! / norm - 1)).toBeLessThan(1e-3);
  // AdamW's first moment after one step is a tenth of the gradient.
  const m = toDevice((await stateIn(dir, student)).m);
  const tenths = Object.fromEntries(Object.entries(grads).map(([name, g]) => [name, g.mul(0.1)]));
  expect(largestRelativeDifference(m, tenths)).toBeLessThan(1e-3);
  tf.dispose([before, fixed, grads, m, tenths] as tf.TensorContainer);
});

describe("a teacher behind an address", () => {
  test.each<[string, Partial<DistillSettings>, number]>([
    ["the whole vocabulary", { loss_temperature: 0.7, beta: 0.3 }, 384],
    ["its 8 likeliest tokens and the rest", { loss_top_k: 8, loss_add_tail: true }, 8],
    ["its 8 likeliest tokens alone", { loss_top_k: 8, loss_temperature: 0.7, beta: 0 }, 8],
  ])("that tells %s leads to the losses and gradients of a local one", async (_, changes, k) => {
    const { teacher: remote, asked } = remoteTeacher(teacherModel);
    const [ofRemote, ofLocal] = [await logOf(changes, remote), await logOf(changes)];
    expect(asked.map((request) => [request.requests.length, request.k])).toEqual([
      [3, k],
      [3, k],
    ]);
    ofLocal.forEach(({ loss, grad_norm }, i) => {
      expect(loss).toBeGreaterThan(0.01);
      expect(Math.abs(ofRemote[i]!.loss! / loss! - 1)).toBeLessThan(1e-3);
      expect(Math.abs(ofRemote[i]!.grad_norm! / grad_norm! - 1)).toBeLessThan(1e-3);
    });
  });

  test("is not asked for a tail at a temperature where it knows none", async () => {
    const { teacher: remote, asked } = remoteTeacher(teacherModel);
    const changes = { loss_top_k: 8, loss_add_tail: true, loss_temperature: 0.7 };
    await expect(logOf(changes, remote)).rejects.toThrow(/^loss_temperature 0\.7 with loss_add_tail: true needs/);
    expect(asked).toEqual([]);
  });
});

test("a local teacher with another vocabulary is refused", async () => {
  const { folder } = teacherModel;
  const other = { ...teacherModel, folder: { ...folder, config: { ...folder.config, vocabSize: 400 } } };
  await expect(logOf({}, { kind: "local", model: other })).rejects.toThrow(
    expect.objectContaining({
      name: "TrainingError",
      message:
        `${folder.dir}: the teacher's vocabulary has 400 entries, the student's (${student.folder.dir}) 384; ` +
        "expected models of one family, whose token ids mean the same",
    }),
  );
});

test("compiled, the first step is the same, and in 20 steps the divergence falls to less than half", async () => {
  const run = async (steps: number) => {
    const { context, log } = stageContext(await newFolder());
    const copy = await loadModel(fixture("arithmetic/student"));
    // Completions of one token: batches of one shape, one program.
    const short = { ...settings, steps, max_new_tokens: 1, learning_rate: 3e-3 };
    await distill(oneLayer(copy), teacher, rows, short, context);
    disposeModel(copy);
    return log;
  };
  const [eager] = await run(1);
  vi.unstubAllEnvs();
  const log = await run(20);
  for (const key of ["loss", "grad_norm"]) expect(Math.abs(log[0]![key]! / eager![key]! - 1), key).toBeLessThan(1e-4);
  const mean = (part: typeof log) => sum(part.map(({ loss }) => loss!)) / part.length;
  expect(mean(log.slice(-5))).toBeLessThan(0.5 * mean(log.slice(0, 5)));
});

test("leaves no tensor behind, with a schedule for everything that may follow one", async () => {
  const small = oneLayer(student);
  const schedules = {
    beta: "0.1 * step",
    temperature: "step",
    loss_temperature: "2 * step",
    learning_rate: "1e-3 / step",
  };
  const before = tf.memory().numTensors;
  const { context, log } = stageContext(await newFolder());
  await distill(small, teacher, rows, { ...settings, ...schedules }, context);
  expect(log.map(({ learning_rate }) => learning_rate)).toEqual([1e-3, 5e-4]);
  expect(tf.memory().numTensors).toBe(before);
});
