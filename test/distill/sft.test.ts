/** Supervised fine-tuning: its loss and gradient against forward passes over each row alone. */
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type EncodedRow, encodePrompts } from "../../distill/encode.js";
import { type SftSettings, sft } from "../../distill/sft.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import { loadTrainingState } from "../../student/training-state.js";
import { completionLogitsAlone, gradients, largestRelativeDifference } from "../model/alone.js";
import { fixture, largestDifference } from "../model/golden.js";
import { newFolder, stageContext, stateIn, stopped, toDevice, training } from "./stage.js";

const dir = fixture("arithmetic/student");
const settings = { ...training, steps: 4, batch_size: 2 };
const data = [
  { prompt: "1+2=", completion: "3" },
  { prompt: "(10*10)/100=", completion: "123456" },
];

let model: LoadedModel;
let rows: EncodedRow[];
beforeAll(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  model = await loadModel(dir);
  rows = await encodePrompts(model.folder, data, { system: "error", maxNewTokens: settings.max_new_tokens });
});
afterAll(() => {
  disposeModel(model);
  vi.unstubAllEnvs();
});

/** A step on 8 rows: its loss, its gradient's norm, and a tenth of that gradient. */
async function stepWith(changes: Partial<SftSettings>) {
  const dir = await newFolder();
  const { context, log } = stageContext(dir, { stopAfter: 1 });
  const eight = Array.from({ length: 8 }, (_, i) => rows[i % 2]!);
  const still = { ...settings, batch_size: 8, learning_rate: 0, ...changes };
  await expect(sft(model, eight, still, context)).rejects.toBe(stopped);
  const { loss, grad_norm } = log[0]!;
  return { loss, grad_norm, m: toDevice((await stateIn(dir, model)).m) };
}

async function expectSameStep(changes: Partial<SftSettings>): Promise<void> {
  const [expected, got] = [await stepWith({}), await stepWith(changes)];
  expect(got.loss! / expected.loss!).toBeCloseTo(1, 5);
  expect(got.grad_norm! / expected.grad_norm!).toBeCloseTo(1, 5);
  expect(largestRelativeDifference(got.m, expected.m)).toBeLessThan(1e-5);
  tf.dispose([expected.m, got.m] as tf.TensorContainer);
}

describe("sft", () => {
  test("a step's loss is the cross-entropy of the completions, a mean over their tokens, and so is its gradient", async () => {
    const { folder, parameters } = model;
    const endOfTurn = folder.tokenizer!.idOf("<end_of_turn>")!;
    const digits = await folder.tokenizer!.encode("123456");
    const completions = [[...(await folder.tokenizer!.encode("3")), endOfTurn], digits.slice(0, 5)];
    expect(completions.map(({ length }) => length)).toEqual([2, 5]);
    /** -mean ln p over the 7 tokens. */
    const lossOf = (weights: Record<string, tf.Tensor>): tf.Scalar =>
      tf
        .addN(
          completions.map((ids, row) => {
            const logits_nV = completionLogitsAlone(weights, folder.config, rows[row]!.prompt, ids);
            return tf
              .logSoftmax(logits_nV)
              .mul(tf.oneHot(tf.tensor1d(ids, "int32"), 384))
              .sum();
          }),
        )
        .div(-7);

    const before = readParameters(parameters);
    const [expectedLoss, grads] = [tf.tidy(() => lossOf(before).dataSync()[0]!), gradients(before, lossOf)];
    const folderOfRun = await newFolder();
    const { context, log } = stageContext(folderOfRun, { stopAfter: 1 });
    await expect(sft(model, rows, settings, context)).rejects.toBe(stopped);

    const norm = Math.sqrt(Object.values(grads).reduce((sum, g) => sum + g.square().sum().dataSync()[0]!, 0));
    expect(log).toEqual([
      {
        step: 1,
        loss: expect.closeTo(expectedLoss, 4),
        learning_rate: 1e-3,
        grad_norm: expect.closeTo(norm, 3),
        completion_length: 3.5,
        tokens_per_second: expect.any(Number),
      },
    ]);
    // AdamW's first moment after one step is a tenth of the gradient.
    const m = toDevice((await stateIn(folderOfRun, model)).m);
    const tenths = Object.fromEntries(Object.entries(grads).map(([name, g]) => [name, g.mul(0.1)]));
    expect(largestRelativeDifference(m, tenths)).toBeLessThan(1e-3);
    tf.dispose([before, grads, m, tenths] as tf.TensorContainer);
  });

  test("of a conversation the loss is that of every answer, a mean over the tokens of all of them", async () => {
    const { folder, parameters } = model;
    const said = ["1+2=", "3", "and 4?", "7", "+ 10?", "17"];
    const messages = said.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));
    const two = await encodePrompts(folder, [{ messages }, data[0]!], { system: "error", maxNewTokens: 5 });
    const { context, log } = stageContext(await newFolder(), { stopAfter: 1 });
    await expect(sft(model, two, { ...settings, learning_rate: 0 }, context)).rejects.toBe(stopped);

    const before = readParameters(parameters);
    const ends = [2, 4, 6].map((end) => said.slice(0, end));
    const alone = await Promise.all(
      [...ends, ["1+2=", "3"]].map(async (texts) => {
        const turns = messages.slice(0, texts.length - 1);
        const answer = [...(await folder.tokenizer!.encode(texts.at(-1)!)), folder.tokenizer!.idOf("<end_of_turn>")!];
        return { prompt: await folder.chat.promptIds(turns), answer };
      }),
    );
    expect(alone.map(({ answer }) => answer.length)).toEqual([2, 2, 3, 2]);
    const sums = alone.map(({ prompt, answer }) =>
      tf.tidy(() => {
        const logits_nV = completionLogitsAlone(before, folder.config, prompt, answer);
        return tf
          .logSoftmax(logits_nV)
          .mul(tf.oneHot(tf.tensor1d(answer, "int32"), 384))
          .sum()
          .dataSync()[0]!;
      }),
    );
    expect(log[0]).toMatchObject({
      loss: expect.closeTo(sums.reduce((a, b) => a + b) / -9, 4),
      completion_length: 4.5,
    });
    tf.dispose(before);
  });

  test("8 micro-batches of one row have the loss and gradient of one batch of 8", async () => {
    await expectSameStep({ gradient_accumulation_steps: 8 });
  });

  test.each([1, 4])("layers in loops have it too, in %d micro-batches", (gradient_accumulation_steps) =>
    expectSameStep({ gradient_checkpointing: true, gradient_accumulation_steps }),
  );

  test("compiled, layers in loops have it too", async () => {
    vi.stubEnv("HEDDLE_JIT", "1");
    await expectSameStep({ gradient_checkpointing: true, gradient_accumulation_steps: 2 });
    vi.stubEnv("HEDDLE_JIT", "0");
  });

  test("what is frozen stays, and nothing is kept of it", async () => {
    const dir = await newFolder();
    const { context, log } = stageContext(dir, { stopAfter: 1 });
    const before = readParameters(model.parameters);
    const changes = { trainable: ["layers\\.1\\.mlp"], gradient_checkpointing: true, learning_rate: 1e-3 };
    await expect(sft(model, rows, { ...settings, ...changes }, context)).rejects.toBe(stopped);
    expect(log[0]!.grad_norm).toBeGreaterThan(0);
    const after = readParameters(model.parameters);
    const moved = Object.keys(before).filter((name) => largestDifference(after[name]!, before[name]!) > 0);
    expect(moved).toEqual(["down_proj", "gate_proj", "up_proj"].map((name) => `model.layers.1.mlp.${name}.weight`));
    const saved = await loadTrainingState(dir, Object.fromEntries(moved.map((name) => [name, before[name]!.shape])));
    expect(Object.keys(saved!.v)).toEqual(moved);
    for (const name of moved) tf.tidy(() => model.parameters[name]!.assign(before[name]!));
    tf.dispose([before, after] as tf.TensorContainer);
  });

  test("the loss falls, and no tensor is left behind", async () => {
    const before = tf.memory().numTensors;
    const { context, log } = stageContext(await newFolder());
    await sft(model, rows, settings, context);
    expect(log.length).toBe(4);
    log.slice(1).forEach(({ loss }, i) => {
      expect(loss).toBeLessThan(log[i]!.loss!);
    });
    expect(tf.memory().numTensors).toBe(before);
  });
});
