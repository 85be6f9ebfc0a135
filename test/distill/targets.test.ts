/** What a teacher behind an address tells leads to the same loss as the same teacher in this process. The two models have one vocabulary. */
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { divergence, divergenceTopK } from "../../distill/losses.js";
import { closeTeacher, divergenceFrom, type TargetLoss, targetsOf } from "../../distill/targets.js";
import { topKOfLogits } from "../../distill/top-k.js";
import { type Batch, listSequences, type Sequence, sizesOf } from "../../model/batch.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import { batchTensors, completionHidden, completionLogits } from "../../model/scoring.js";
import { fixture } from "../model/golden.js";
import { remoteTeacher } from "./fake-teacher.js";

const V = 384;
const sequences: Sequence[] = [
  { prompt: [2, 5, 9, 30, 31], completions: [[40, 41, 42], [50]] },
  {
    prompt: [2, 5, 7],
    completions: [
      [60, 61],
      [9, 10, 11, 12, 13],
    ],
  },
];
const batch: Batch = listSequences(
  sequences,
  sizesOf(
    sequences.map(({ prompt }) => prompt),
    { rows: 2, samples: 2, maxNewTokens: 5 },
  ),
);
const tokens = 3 + 1 + 2 + 5;

let model: LoadedModel;
let student: LoadedModel;
beforeAll(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  model = await loadModel(fixture("models/gemma2-tiny"));
  student = await loadModel(fixture("arithmetic/student"));
});
afterAll(() => {
  disposeModel(model);
  disposeModel(student);
  vi.unstubAllEnvs();
});

/** The values that each teacher's targets lead to are those of the plain formula on the teacher's logits. */
async function expectSameLoss(loss: TargetLoss): Promise<void> {
  const tensors = batchTensors(batch);
  const both = [
    await targetsOf({ kind: "local", model }, batch, tensors, loss.k, V),
    await targetsOf(remoteTeacher(model).teacher, batch, tensors, loss.k, V),
  ];
  tf.tidy(() => {
    const logitsOf = ({ parameters, folder }: LoadedModel) =>
      completionLogits(readParameters(parameters), folder.config, tensors);
    const [student_WV, teacher_WV] = [logitsOf(student), logitsOf(model)];
    const plain =
      loss.k === V
        ? divergence(student_WV, teacher_WV, loss)
        : divergenceTopK(student_WV, topKOfLogits(teacher_WV, loss.k, loss.temperature), loss);
    for (const targets of both)
      expectSameValues(
        divergenceFrom(targets, loss)(student_WV, (x) => x),
        plain,
      );
  });
  tf.dispose([tensors, both] as unknown as tf.TensorContainer);
}

/** The same for all tokens that count, not all 0, and finite ones for what fills up the batch. */
function expectSameValues(got_W: tf.Tensor1D, expected_W: tf.Tensor1D): void {
  const [got, expected] = [[...got_W.dataSync()], [...expected_W.dataSync()]];
  expect(expected.length).toBeGreaterThan(tokens);
  const differences = expected.slice(0, tokens).map((x, n) => Math.abs(x - got[n]!));
  // Divergences are up to 24 nats, of logits that the two paths round in other orders.
  const largest = Math.max(...expected.slice(0, tokens));
  expect(Math.max(...differences)).toBeLessThan(1e-4 * Math.max(1, largest));
  expect(largest).toBeGreaterThan(0.1);
  expect(got.every(Number.isFinite)).toBe(true);
}

describe("targetsOf", () => {
  test("a local teacher tells hidden states, whatever k: its head is its own", async () => {
    const tensors = batchTensors(batch);
    const targets = await targetsOf({ kind: "local", model }, batch, tensors, 3, V);
    const { hidden_WD } = completionHidden(readParameters(model.parameters), model.folder.config, tensors);
    const name = "model.embed_tokens.weight";
    expect(targets).toMatchObject({ embedding: { [name]: model.parameters[name] }, softCap: 30 });
    expect([...(targets as { hidden_WD: tf.Tensor }).hidden_WD.dataSync()]).toEqual([...hidden_WD.dataSync()]);
  });

  test("a remote one is asked for the k likeliest tokens in each place of each completion", async () => {
    const { teacher, asked } = remoteTeacher(model);
    const tensors = batchTensors(batch);
    tf.dispose((await targetsOf(teacher, batch, tensors, 7, V)) as unknown as tf.TensorContainer);
    tf.dispose(tensors as unknown as tf.TensorContainer);
    const requests = [
      { ids: [2, 5, 9, 30, 31, 40, 41, 42], from: 5 },
      { ids: [2, 5, 9, 30, 31, 50], from: 5 },
      { ids: [2, 5, 7, 60, 61], from: 3 },
      { ids: [2, 5, 7, 9, 10, 11, 12, 13], from: 3 },
    ];
    expect(asked).toEqual([{ requests, k: 7 }]);
  });

  test.each([0, 0.5, 1])("the whole vocabulary, here or over HTTP, gives the divergence at beta %d", async (beta) => {
    for (const temperature of [1, 0.5]) await expectSameLoss({ beta, temperature, k: V, addTail: false });
  });

  test.each<[number, boolean, number]>([
    [5, true, 1],
    [5, false, 1],
    [5, false, 0.5],
    [V - 1, true, 1],
  ])(
    "the %i likeliest, here or over HTTP, tail: %s, give the divergence at temperature %d",
    async (k, addTail, temperature) => {
      for (const beta of [0, 0.5, 1]) await expectSameLoss({ beta, temperature, k, addTail });
    },
  );
});

test("closeTeacher closes a remote teacher, and frees a local one", async () => {
  const { teacher, close } = remoteTeacher(model);
  await closeTeacher(teacher);
  expect(close).toHaveBeenCalledTimes(1);
  const local = await loadModel(fixture("models/gemma2-tiny"));
  await closeTeacher({ kind: "local", model: local });
  expect(Object.values(local.parameters).every(({ isDisposed }) => isDisposed)).toBe(true);
});
