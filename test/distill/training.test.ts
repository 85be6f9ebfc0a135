/** The loop over steps with steps that add 1 to a parameter: what it saves, where it goes on, how it ends. */
import { readdir } from "node:fs/promises";
import { tf } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { type StageContext, saveStageModel, train } from "../../distill/training.js";
import { disposeModel, loadModel } from "../../model/loaded.js";
import { createParameters, downloadTensor, type Parameters } from "../../model/parameters.js";
import { createTrainable, type Trainable } from "../../student/trainable.js";
import { fixture } from "../model/golden.js";
import { newFolder, stageContext, stopped } from "./stage.js";

const parameter = (value: number): Parameters => createParameters({ w: tf.tensor1d([value]) });
const numberOf = ({ w }: Parameters): number => downloadTensor(w!)[0]!;

/** Trains w, which starts at 0, and an average, which starts at 100: each step adds 1 to all that is saved. */
async function count(
  context: StageContext,
  settings: { steps: number; save_every: number },
  lossAt = (step: number) => step,
) {
  const trainable: Trainable = createTrainable(parameter(0));
  const extra = parameter(100);
  const all = [trainable.parameters, trainable.m, trainable.v, extra];
  const end = train(trainable, extra, settings, context, (step) => {
    for (const { w } of all) tf.tidy(() => w!.assign(w!.read().add(1)));
    return Promise.resolve({ loss: lossAt(step) });
  });
  const error: unknown = await end.then(
    () => null,
    (reason: unknown) => reason,
  );
  return { error, values: all.map(numberOf) };
}

describe("train", () => {
  test("runs the steps from 1, and tells of each", async () => {
    const { context, log, starts } = stageContext(await newFolder());
    const { error, values } = await count(context, { steps: 3, save_every: 10 });
    expect(error).toBeNull();
    expect(values).toEqual([3, 3, 3, 103]);
    expect(starts).toEqual([0]);
    expect(log).toEqual([1, 2, 3].map((step) => ({ step, loss: step })));
  });

  test("saves every save_every steps but for the last, whose result is the model", async () => {
    for (const [steps, saved] of [
      [6, ["checkpoint-4"]],
      [7, ["checkpoint-6"]],
      [2, []],
    ] as const) {
      const dir = await newFolder();
      await count(stageContext(dir).context, { steps, save_every: 2 });
      expect(await readdir(dir)).toEqual(saved);
    }
  });

  test("told to stop, saves after the step and throws the reason; started again, goes on with all it had", async () => {
    const dir = await newFolder();
    const first = stageContext(dir, { stopAfter: 2 });
    expect((await count(first.context, { steps: 5, save_every: 10 })).error).toBe(stopped);
    expect(await readdir(dir)).toEqual(["checkpoint-2"]);

    const second = stageContext(dir);
    const { error, values } = await count(second.context, { steps: 5, save_every: 10 });
    expect(error).toBeNull();
    expect(values).toEqual([5, 5, 5, 105]);
    expect(second.starts).toEqual([2]);
    expect(second.log.map(({ step }) => step)).toEqual([3, 4, 5]);
  });

  test("does nothing more where all steps are done", async () => {
    const dir = await newFolder();
    await count(stageContext(dir, { stopAfter: 2 }).context, { steps: 2, save_every: 10 });
    const { context, log, starts } = stageContext(dir);
    expect((await count(context, { steps: 2, save_every: 10 })).values).toEqual([2, 2, 2, 102]);
    expect([starts, log]).toEqual([[2], []]);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])(
    "refuses a loss of %d, and keeps what was saved before",
    async (loss) => {
      const dir = await newFolder();
      const { context, log } = stageContext(dir);
      const { error } = await count(context, { steps: 5, save_every: 1 }, (step) => (step === 3 ? loss : 1));
      expect(error).toMatchObject({
        name: "TrainingError",
        message: `test: the loss is ${loss} at step 3; lower learning_rate or max_grad_norm, and start the run again`,
      });
      expect(log.length).toBe(2);
      expect(await readdir(dir)).toEqual(["checkpoint-2"]);
    },
  );
});

test("saveStageModel puts a model folder beside the checkpoints, in float32 whatever the input's format was", async () => {
  const dir = await newFolder();
  await count(stageContext(dir, { stopAfter: 1 }).context, { steps: 2, save_every: 10 });
  const model = await loadModel(fixture("arithmetic/student"));
  // 1 + 2^-20 is no bfloat16.
  const norm = "model.norm.weight";
  tf.tidy(() => model.parameters[norm]!.assign(tf.fill(model.parameters[norm]!.shape as number[], 1 + 2 ** -20)));
  await saveStageModel(dir, model);
  disposeModel(model);

  const names = await readdir(dir);
  expect(names).toContain("checkpoint-1");
  expect(names).toContain("tokenizer.json");
  expect(names.filter((name) => name.includes("partial"))).toEqual([]);
  const saved = await loadModel(dir);
  expect(new Set(downloadTensor(saved.parameters[norm]!))).toEqual(new Set([1 + 2 ** -20]));
  expect(saved.folder.config.dtype).toBe("float32");
  disposeModel(saved);
});
