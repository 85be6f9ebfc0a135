/** What a teacher behind an address tells leads to the same loss as the same teacher in this process. The two models have one vocabulary. */
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type DivergenceOptions, divergence, divergenceTopK } from "../../distill/losses.js";
import { closeTeacher, type Targets, targetsOf } from "../../distill/targets.js";
import { type TopK, topKOfLogits, topKOfServer } from "../../distill/top-k.js";
import { type Batch, listSequences, type Sequence, sizesOf } from "../../model/batch.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import { batchTensors, completionLogits } from "../../model/scoring.js";
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

/** The targets of both teachers and the student's logits, while `compare` looks at them. */
async function withTargets(
  k: number,
  compare: (local_WV: tf.Tensor2D, remote: Targets, student_WV: tf.Tensor2D) => void,
): Promise<void> {
  const tensors = batchTensors(batch);
  const [local, remote] = [
    await targetsOf({ kind: "local", model }, batch, tensors, k, V),
    await targetsOf(remoteTeacher(model).teacher, batch, tensors, k, V),
  ];
  tf.tidy(() => {
    const student_WV = completionLogits(readParameters(student.parameters), student.folder.config, tensors);
    compare((local as { logits_WV: tf.Tensor2D }).logits_WV, remote, student_WV);
  });
  tf.dispose([tensors, local, remote] as unknown as tf.TensorContainer);
}

/** The same values for all tokens that count, not all 0, and finite ones for what fills up the batch. */
function expectSameLoss(remote_W: tf.Tensor1D, local_W: tf.Tensor1D): void {
  const [remote, local] = [[...remote_W.dataSync()], [...local_W.dataSync()]];
  expect(local.length).toBeGreaterThan(tokens);
  const differences = local.slice(0, tokens).map((x, n) => Math.abs(x - remote[n]!));
  expect(Math.max(...differences)).toBeLessThan(1e-4);
  expect(Math.max(...local.slice(0, tokens))).toBeGreaterThan(0.1);
  expect(remote.every(Number.isFinite)).toBe(true);
}

describe("targetsOf", () => {
  test("a local teacher tells its logits, whatever k", async () => {
    await withTargets(3, (local_WV) => {
      const expected_WV = completionLogits(readParameters(model.parameters), model.folder.config, batchTensors(batch));
      expect([...local_WV.dataSync()]).toEqual([...expected_WV.dataSync()]);
    });
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

  test.each([0, 0.5, 1])("the whole vocabulary over HTTP gives the local divergence at beta %d", async (beta) => {
    for (const temperature of [1, 0.5]) {
      const options: DivergenceOptions = { beta, temperature };
      await withTargets(V, (local_WV, remote, student_WV) => {
        const { logits_WV } = remote as { logits_WV: tf.Tensor2D };
        expectSameLoss(divergence(student_WV, logits_WV, options), divergence(student_WV, local_WV, options));
      });
    }
  });

  test.each<[number, boolean, number]>([
    [5, true, 1],
    [5, false, 1],
    [5, false, 0.5],
    [V - 1, true, 1],
  ])(
    "the %i likeliest over HTTP, tail: %s, give the local divergence at temperature %d",
    async (k, addTail, temperature) => {
      for (const beta of [0, 0.5, 1]) {
        const options = { beta, temperature, addTail };
        await withTargets(k, (local_WV, remote, student_WV) => {
          expectSameLoss(
            divergenceTopK(student_WV, topKOfServer(remote as Required<TopK>, temperature), options),
            divergenceTopK(student_WV, topKOfLogits(local_WV, k, temperature), options),
          );
        });
      }
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
