/** AdamW against arithmetic by hand and against torch.optim.AdamW 2.15 (foreach=False) on the gradients below, in float32. */
import { jit, tf } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { adamwUpdate } from "../../student/adamw.js";

const torchDefaults = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
const numbers = (x: tf.Tensor) => Array.from(x.dataSync());

function expectClose(got: tf.Tensor, expected: number[], relative = 1e-6): void {
  numbers(got).forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(relative * Math.abs(expected[i]!));
  });
}

type State = Pick<Parameters<typeof adamwUpdate>[0], "param" | "m" | "v">;
type Numbers = Omit<Parameters<typeof adamwUpdate>[0], keyof State | "grad" | "step" | "learningRate">;

const start = (values: number[]): State => ({
  param: tf.tensor1d(values),
  m: tf.zeros([values.length]),
  v: tf.zeros([values.length]),
});
const update = (state: State, grad: number[], step: number, learningRate: number, o: Numbers, compiled = adamwUpdate) =>
  compiled({
    ...state,
    grad: tf.tensor1d(grad),
    step: tf.scalar(step),
    learningRate: tf.scalar(learningRate),
    ...o,
  });

describe("adamwUpdate", () => {
  test("moves by the learning rate against the gradient's sign on the first step, whatever its size", () => {
    const { param } = update(start([1, 1, 1]), [1e-3, -5, 0], 1, 0.1, { ...torchDefaults, weightDecay: 0 });
    expectClose(param, [0.9, 1.1, 1], 2e-6);
  });

  test("shrinks by learning rate * decay, apart from the gradient: 2 * (1 - 0.1 * 0.5)", () => {
    const { param, m, v } = update(start([2]), [0], 1, 0.1, { ...torchDefaults, weightDecay: 0.5 });
    expectClose(param, [1.9]);
    expect([...numbers(m), ...numbers(v)]).toEqual([0, 0]);
  });

  test("adds epsilon outside the root: a first step of lr * g / (|g| + eps) = 0.1 * 0.5", () => {
    const { param } = update(start([0]), [1], 1, 0.1, { ...torchDefaults, epsilon: 1, weightDecay: 0 });
    expectClose(param, [-0.05], 2e-6);
  });

  const golden = [
    {
      grad: [0.1, -0.2, 3, 0],
      param: [0.989000022, -1.98800004, 0.489500016, 0],
      m: [0.0100000007, -0.0200000014, 0.300000012, 0],
      v: [1.00000007e-5, 4.00000026e-5, 0.00899999961, 0],
    },
    {
      grad: [0.3, 0.1, -1, 1e-4],
      param: [0.978833258, -1.98334873, 0.485008329, -0.00744031649],
      m: [0.0390000045, -0.00800000038, 0.170000017, 9.99999975e-6],
      v: [9.99900076e-5, 4.99600028e-5, 0.00999099948, 9.99999996e-12],
    },
    {
      grad: [-0.5, 0, 2, -1e-9],
      param: [0.979463577, -1.9793067, 0.478492469, -0.0131840147],
      m: [-0.0148999998, -0.0072000003, 0.353000015, 8.99989936e-6],
      v: [0.000349890033, 4.99100424e-5, 0.0139810089, 9.99000015e-12],
    },
  ];

  test.each([
    ["op by op", adamwUpdate],
    ["compiled", jit(adamwUpdate)],
  ])("follows torch for three steps of lr 0.01 and decay 0.1, %s", (_, compiled) => {
    let state = start([1, -2, 0.5, 0]);
    golden.forEach(({ grad, param, m, v }, i) => {
      state = update(state, grad, i + 1, 1e-2, { ...torchDefaults, weightDecay: 0.1 }, compiled);
      expectClose(state.param, param, 1e-6);
      expectClose(state.m, m, 1e-6);
      expectClose(state.v, v, 1e-6);
    });
  });

  test("follows torch for 100 steps of lr 0.001 t with other betas and a large epsilon", () => {
    let state = start([1, -2, 0.5, 0]);
    for (let t = 1; t <= 100; t++) {
      const sign = t % 3 === 0 ? -1 : 1;
      const grad = [1, -0.5, 0.25, 1e-3].map((g) => sign * g);
      state = update(state, grad, t, 1e-3 * t, { beta1: 0.8, beta2: 0.95, epsilon: 1e-3, weightDecay: 0 });
    }
    expectClose(state.param, [-0.682271421, -0.319406986, -1.17724538, -0.841977298], 5e-6);
    expectClose(state.m, [0.344262272, -0.172131136, 0.086065568, 0.000344262313], 1e-6);
    expectClose(state.v, [0.99407953, 0.248519883, 0.0621299706, 9.94079301e-7], 1e-6);
  });
});
