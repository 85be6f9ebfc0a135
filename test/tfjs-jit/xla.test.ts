/** jit with XLA and without: the same results by other kernels. */
import {
  cond,
  dynamicSlice,
  dynamicUpdateSlice,
  eachOf,
  gatherRows,
  isBfloat16,
  jit,
  randomUniform,
  scan,
  switchCase,
  tf,
  toBfloat16,
  topK,
  Variable,
  whileLoop,
} from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { native } from "../../tfjs-jit/src/native.js";

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];
const scalar = (value: number): tf.Tensor => tf.scalar(value);

/** The types of the ops that are recorded while `body` runs. */
function opsRecorded(body: () => void): Set<string> {
  const types = new Set<string>();
  const { graphOp } = native;
  native.graphOp = (graph, type, ...rest) => {
    types.add(type);
    return graphOp(graph, type, ...rest);
  };
  try {
    body();
  } finally {
    native.graphOp = graphOp;
  }
  return types;
}

describe("jit without XLA", () => {
  const x = tf.tensor2d([0.3, -1.2, 2, 0.5, 1.5, -0.7], [3, 2]);
  const one = tf.scalar(1, "int32");
  const w = tf.tensor2d([0.4, -0.3, 0.9, 0.2], [2, 2]);

  test.each<[string, (x: tf.Tensor, one: tf.Tensor) => tf.Tensor]>([
    [
      "an expression",
      (x) =>
        tf
          .matMul(x as tf.Tensor2D, w)
          .tanh()
          .softmax(),
    ],
    ["dynamicSlice", (x, one) => dynamicSlice(x, [one, 0], [2, 2])],
    ["dynamicUpdateSlice", (x, one) => dynamicUpdateSlice(x, tf.ones([1, 2]), [one, 0])],
    ["gradients", (x, one) => tf.grad((x) => dynamicSlice(x, [one, 0], [2, 2]).square().sum())(x)],
    ["topK and gatherRows", (x, one) => gatherRows(topK(x, 1).values, one.reshape([1]))],
    ["randomUniform", (_, one) => randomUniform(one, 7, [5])],
    [
      "cond",
      (x) =>
        cond(
          x.sum().greater(0),
          () => x.neg(),
          () => x,
        ),
    ],
    ["switchCase", (x, one) => switchCase(one, [() => x, () => x.mul(3)])],
    [
      "whileLoop",
      (x, one) =>
        whileLoop(
          ({ i }) => i.less(tf.scalar(4, "int32")),
          ({ i, x }) => ({ i: i.add(one), x: x.mul(1.5).add(tf.sum(w)) }),
          { i: one, x },
        ).x,
    ],
    [
      "the gradient of scan",
      (x) =>
        tf.grad((u: tf.Tensor) =>
          scan(
            (h: tf.Tensor, row: tf.Tensor) => [
              tf
                .matMul(h as tf.Tensor2D, u as tf.Tensor2D)
                .add(row)
                .tanh(),
              null,
            ],
            tf.ones([1, 2]),
            x,
          )[0].sum(),
        )(w),
    ],
    [
      "scan over a list",
      (x) => scan((h: tf.Tensor, r: tf.Tensor) => [h.mul(r).add(1), h], tf.ones([2]), eachOf(tf.unstack(x)))[1],
    ],
  ])("%s", (_, fn) => {
    const plain = values(fn(x, one));
    let result = tf.zeros([0]);
    const types = opsRecorded(() => {
      result = jit(fn, { xla: false })(x, one);
    });
    for (const [i, value] of values(result).entries()) expect(value).toBeCloseTo(plain[i]!, 5);
    expect([...types].filter((type) => type.startsWith("Xla"))).toEqual([]);
  });

  test("updates Variables, and looks up what it refers to", () => {
    const total = new Variable(scalar(1));
    const captured = tf.variable(scalar(10));
    const f = jit(
      (x: tf.Tensor) => {
        const before = total.read();
        total.assign(before.add(x).add(captured));
        return before;
      },
      { xla: false },
    );
    expect(values(f(scalar(5)))).toEqual([1]);
    captured.assign(scalar(100));
    expect(values(f(scalar(5)))).toEqual([16]);
    expect(values(total.read())).toEqual([121]);
    total.dispose();
    captured.dispose();
  });

  test("multiplies in bfloat16", () => {
    const product = jit((x: tf.Tensor, y: tf.Tensor) => tf.matMul(x as tf.Tensor2D, y as tf.Tensor2D), { xla: false });
    const result = product(
      toBfloat16(tf.tensor2d([1, 2, 3, 4], [2, 2])),
      toBfloat16(tf.tensor2d([1, 0, 1, 1], [2, 2])),
    );
    expect([isBfloat16(result), values(result)]).toEqual([true, [3, 2, 7, 4]]);
  });

  test("is a matter of the outermost jit", () => {
    const inner = jit((x: tf.Tensor) => dynamicSlice(x, [one, 0], [1, 2]));
    const types = opsRecorded(() => {
      expect(values(jit((x: tf.Tensor) => inner(x).mul(2), { xla: false })(x))).toEqual([4, 1]);
    });
    expect(types.has("Slice")).toBe(true);
  });
});
