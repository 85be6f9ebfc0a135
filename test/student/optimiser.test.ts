/**
 * Steps on loss = (|a|^2 + |b|^2) / 2, whose gradient is the parameters themselves: a = (3, 4) and b = (12) have a loss
 * of (9 + 16 + 144) / 2 = 84.5 and a gradient of norm 13.
 */
import { tf, type Variable } from "tfjs-jit";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Weights } from "../../model/forward.js";
import { createParameters, type Parameters } from "../../model/parameters.js";
import { changeOf, layerTensor } from "../../model/shapes.js";
import { type StepScalars, trainingStep, valueAndGradients } from "../../student/optimiser.js";
import { createTrainable, disposeOptimiser, type Trainable } from "../../student/trainable.js";

const parametersNow = () => createParameters({ a: tf.tensor1d([3, 4]), b: tf.tensor2d([[12]]) });
const halfSquare = (weights: Readonly<Record<string, tf.Tensor>>): tf.Scalar =>
  tf.addN([weights.a!.square().sum(), weights.b!.square().sum()]).div(2);

/** All numbers of a and b. */
const numbers = (tensors: Readonly<Record<string, tf.Tensor>>): number[] =>
  tf.tidy(() => [...tensors.a!.dataSync(), ...tensors.b!.dataSync()]);
const values = ({ a, b }: Parameters): number[] => tf.tidy(() => numbers({ a: a!.read(), b: b!.read() }));

function expectClose(got: number[], expected: number[]): void {
  expect(got.length).toBe(expected.length);
  got.forEach((x, i) => {
    expect(Math.abs(x / expected[i]! - 1), `number ${i}`).toBeLessThan(1e-5);
  });
}

const adamw = { adam_beta1: 0.9, adam_beta2: 0.999, adam_epsilon: 1 };
type Numbers = Record<keyof StepScalars, number>;

const scalarsOf = (numbers: Numbers): StepScalars => ({
  step: tf.scalar(numbers.step),
  learningRate: tf.scalar(numbers.learningRate),
  weightDecay: tf.scalar(numbers.weightDecay),
  maxGradNorm: tf.scalar(numbers.maxGradNorm),
});

const halfSquareStep = trainingStep("test", (weights: Weights, share: number) => halfSquare(weights).mul(share));

/** Steps with the numbers of each. */
const stepper = (trainable: Trainable) => (scalars: Numbers) =>
  tf.tidy(() => {
    const { loss, gradNorm } = halfSquareStep(trainable, [1], { adamw, scalars: scalarsOf(scalars) });
    return { loss: loss.dataSync()[0]!, gradNorm: gradNorm!.dataSync()[0]! };
  });

describe.each([
  ["op by op", "0"],
  ["jit", "1"],
])("a training step, %s", (_, HEDDLE_JIT) => {
  beforeEach(() => vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT));
  afterEach(() => vi.unstubAllEnvs());

  test("clips the gradient to a norm of 6.5, which is half of it, decays the weights and takes AdamW's first step", () => {
    const trainable = createTrainable(parametersNow());
    const step = stepper(trainable)({ step: 1, learningRate: 0.1, weightDecay: 0.5, maxGradNorm: 6.5 });

    expectClose([step.loss, step.gradNorm], [84.5, 13]);
    // p (1 - 0.1 * 0.5) - 0.1 g / (|g| + 1) with g = 1.5, 2 and 6
    const expected = [2.85 - 0.1 * (1.5 / 2.5), 3.8 - 0.1 * (2 / 3), 11.4 - 0.1 * (6 / 7)];
    expectClose(values(trainable.parameters), expected);
    expectClose(values(trainable.m), [0.15, 0.2, 0.6]); // 0.1 g
    expectClose(values(trainable.v), [0.00225, 0.004, 0.036]); // 0.001 g^2
  });

  test("goes on from the moments and the weights of the step before, at this step's rate", () => {
    const trainable = createTrainable(parametersNow());
    const step = stepper(trainable);
    step({ step: 1, learningRate: 0.1, weightDecay: 0.5, maxGradNorm: 6.5 });
    const before = values(trainable.parameters);
    const { loss, gradNorm } = step({ step: 2, learningRate: 0.2, weightDecay: 0, maxGradNorm: 1e9 });

    expectClose([gradNorm ** 2, 2 * loss], new Array(2).fill(before.reduce((sum, p) => sum + p * p, 0)) as number[]);
    const m = [0.15, 0.2, 0.6].map((m, i) => 0.9 * m + 0.1 * before[i]!);
    const v = [0.00225, 0.004, 0.036].map((v, i) => 0.999 * v + 0.001 * before[i]! ** 2);
    expectClose(values(trainable.m), m);
    expectClose(values(trainable.v), v);
    const rootOf = (i: number) => Math.sqrt(v[i]! / (1 - 0.999 ** 2));
    expectClose(
      values(trainable.parameters),
      before.map((p, i) => p - (0.2 * (m[i]! / (1 - 0.9 ** 2))) / (rootOf(i) + 1)),
    );
  });

  test("adds up the gradients of micro-batches, and steps with the last one", () => {
    const [whole, parts] = [1, 2].map((gradient_accumulation_steps) =>
      createTrainable(parametersNow(), { gradient_accumulation_steps }),
    ) as [Trainable, Trainable];
    const scalars = { step: 1, learningRate: 0.1, weightDecay: 0.5, maxGradNorm: 6.5 };
    const expected = stepper(whole)(scalars);

    // A quarter of the loss, then the rest of it.
    const first = halfSquareStep(parts, [0.25], null);
    expect([first.loss.dataSync()[0], first.gradNorm]).toEqual([84.5 / 4, null]);
    expect(values(parts.parameters)).toEqual([3, 4, 12]);
    const { loss, gradNorm } = halfSquareStep(parts, [0.75], { adamw, scalars: scalarsOf(scalars) });
    expectClose([loss.dataSync()[0]!, gradNorm!.dataSync()[0]!], [84.5 * 0.75, expected.gradNorm]);
    expectClose(values(parts.parameters), values(whole.parameters));
    expectClose(values(parts.v), values(whole.v));
    expect(values(parts.sums)).toEqual([0, 0, 0]);
  });

  test("leaves what is frozen as it is, and lets the loss see it", () => {
    const trainable = createTrainable(parametersNow(), { trainable: ["^b$"] });
    const { b } = trainable.parameters;
    expect([Object.keys(trainable.parameters), Object.keys(trainable.frozen)]).toEqual([["b"], ["a"]]);
    const { loss, gradNorm } = stepper(trainable)({ step: 1, learningRate: 0.1, weightDecay: 0, maxGradNorm: 12 });
    expectClose([loss, gradNorm], [84.5, 12]);
    expectClose([...tf.tidy(() => b!.read().dataSync())], [12 - 0.1 * (12 / 13)]);
    expect([...tf.tidy(() => trainable.frozen.a!.read().dataSync())]).toEqual([3, 4]);
  });

  test("moves an average of what learns toward it", () => {
    const trainable = createTrainable(parametersNow(), { trainable: ["b"] });
    const of = createParameters({ b: tf.tensor2d([[20]]) });
    const scalars = scalarsOf({ step: 1, learningRate: 0.1, weightDecay: 0, maxGradNorm: 12 });
    halfSquareStep(trainable, [1], { adamw, scalars }, { of, mu: tf.scalar(0.25) });
    const b = 12 - 0.1 * (12 / 13);
    expectClose([...tf.tidy(() => of.b!.read().dataSync())], [20 + 0.25 * (b - 20)]);
  });

  test("with layers in loops it is the same step, of which all layers' gradients are one", () => {
    // |x|^2 / 2 over two layers of one tensor, and one beside them.
    const names = [layerTensor(0, "w"), layerTensor(1, "w"), "norm"];
    const tensors = () => Object.fromEntries(names.map((name, i) => [name, tf.tensor1d([i + 1, -2])]));
    const inLoops = (weights: Weights): tf.Scalar => {
      const change = weights[changeOf(0, "w")];
      const rows = names.slice(0, 2).map((name, i) => weights[name]!.add(change ? change.gather(i) : 0));
      return tf.addN([...rows, weights.norm!].map((x) => x.square().sum())).div(2);
    };
    const scalars = { step: 1, learningRate: 0.1, weightDecay: 0.5, maxGradNorm: 2 };
    const ends = [false, true].map((gradient_checkpointing) => {
      const trainable = createTrainable(createParameters(tensors()), {
        gradient_checkpointing,
        gradient_accumulation_steps: 2,
      });
      const step = trainingStep("loops", (weights, share: number) => inLoops(weights).mul(share));
      step(trainable, [0.5], null);
      const { loss, gradNorm } = step(trainable, [0.5], { adamw, scalars: scalarsOf(scalars) });
      const all = [trainable.parameters, trainable.m, trainable.v].flatMap(Object.values) as Variable[];
      return {
        sums: Object.entries(trainable.sums).map(([name, { shape }]) => [name, shape]),
        segments: trainable.segments,
        values: all.flatMap((variable) => tf.tidy(() => [...variable.read().dataSync()])),
        numbers: [loss.dataSync()[0]!, gradNorm!.dataSync()[0]!],
      };
    });
    expect(ends.map(({ segments }) => segments)).toEqual([null, [{ first: 0, count: 2 }]]);
    expect(ends[1]!.sums).toEqual([
      ["model.layers.0+.w.change", [2, 2]],
      ["norm", [2]],
    ]);
    expectClose(ends[1]!.values, ends[0]!.values);
    // (1 + 4 + 4 + 4 + 9 + 4) / 2 = 13, of which the second half was told last; the norm is sqrt(26).
    expectClose(ends[1]!.numbers, [13 / 2, Math.sqrt(26)]);
  });

  test("leaves no tensor behind", () => {
    const trainable = createTrainable(parametersNow());
    const step = stepper(trainable);
    step({ step: 1, learningRate: 0.1, weightDecay: 0, maxGradNorm: 1 });
    const before = tf.memory().numTensors;
    step({ step: 2, learningRate: 0.2, weightDecay: 1, maxGradNorm: 2 });
    expect(tf.memory().numTensors).toBe(before);
  });
});

test("valueAndGradients names the gradients as the parameters, and differentiates by those alone", () => {
  const frozen = tf.tensor1d([5, 7]);
  const { value, gradients } = valueAndGradients(
    createParameters({ a: tf.tensor1d([3, 4]) }),
    ({ a }) => a!.mul(frozen).sum() as tf.Scalar,
  );
  expect(value.dataSync()[0]).toBe(3 * 5 + 4 * 7);
  expect(Object.keys(gradients)).toEqual(["a"]);
  expect([...gradients.a!.dataSync()]).toEqual([5, 7]);
});

test("createTrainable starts from moments of zero, and disposeOptimiser frees them alone", () => {
  const trainable = createTrainable(parametersNow());
  expect([...values(trainable.m), ...values(trainable.v)]).toEqual([0, 0, 0, 0, 0, 0]);
  disposeOptimiser(trainable);
  expect(values(trainable.parameters)).toEqual([3, 4, 12]);
  expect(() => values(trainable.m)).toThrow(/was disposed/);
  expect(() => values(trainable.v)).toThrow(/was disposed/);
});

test("a pattern that matches nothing is refused", () => {
  expect(() => createTrainable(parametersNow(), { trainable: ["a", "layers.7"] })).toThrow(
    "trainable: no tensor's name matches layers.7; the names are a, b",
  );
});
