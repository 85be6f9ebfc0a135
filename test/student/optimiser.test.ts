/**
 * Steps on loss = (|a|^2 + |b|^2) / 2, whose gradient is the parameters themselves: a = (3, 4) and b = (12) have a loss
 * of (9 + 16 + 144) / 2 = 84.5 and a gradient of norm 13.
 */
import { jit, tf } from "tfjs-jit";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createParameters, type Parameters } from "../../model/parameters.js";
import {
  createTrainable,
  disposeMoments,
  minimise,
  type StepScalars,
  type Trainable,
  valueAndGradients,
} from "../../student/optimiser.js";

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

/** Steps with the numbers of each. */
function stepper(trainable: Trainable) {
  const compiled = jit((given: Trainable, scalars: StepScalars) => minimise(given, halfSquare, adamw, scalars));
  return (scalars: Numbers) =>
    tf.tidy(() => {
      const { loss, gradNorm, weights } = compiled(trainable, {
        step: tf.scalar(scalars.step),
        learningRate: tf.scalar(scalars.learningRate),
        weightDecay: tf.scalar(scalars.weightDecay),
        maxGradNorm: tf.scalar(scalars.maxGradNorm),
      });
      return { loss: loss.dataSync()[0]!, gradNorm: gradNorm.dataSync()[0]!, weights: numbers(weights) };
    });
}

describe.each([
  ["op by op", "0"],
  ["jit", "1"],
])("minimise, %s", (_, HEDDLE_JIT) => {
  beforeEach(() => vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT));
  afterEach(() => vi.unstubAllEnvs());

  test("clips the gradient to a norm of 6.5, which is half of it, decays the weights and takes AdamW's first step", () => {
    const trainable = createTrainable(parametersNow());
    const step = stepper(trainable)({ step: 1, learningRate: 0.1, weightDecay: 0.5, maxGradNorm: 6.5 });

    expectClose([step.loss, step.gradNorm], [84.5, 13]);
    // p (1 - 0.1 * 0.5) - 0.1 g / (|g| + 1) with g = 1.5, 2 and 6
    const expected = [2.85 - 0.1 * (1.5 / 2.5), 3.8 - 0.1 * (2 / 3), 11.4 - 0.1 * (6 / 7)];
    expectClose(values(trainable.parameters), expected);
    expect(step.weights).toEqual(values(trainable.parameters));
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

test("createTrainable starts from moments of zero, and disposeMoments frees them alone", () => {
  const trainable = createTrainable(parametersNow());
  expect([...values(trainable.m), ...values(trainable.v)]).toEqual([0, 0, 0, 0, 0, 0]);
  disposeMoments(trainable);
  expect(values(trainable.parameters)).toEqual([3, 4, 12]);
  expect(() => values(trainable.m)).toThrow(/was disposed/);
  expect(() => values(trainable.v)).toThrow(/was disposed/);
});
