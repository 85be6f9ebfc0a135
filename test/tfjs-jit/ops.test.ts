import { dynamicSlice, dynamicUpdateSlice, gatherLast, gatherRows, jit, randomUniform, tf, topK } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { threefry } from "../../tfjs-jit/src/random.js";

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];

/** Runs `fn` plainly and compiled. */
function both(fn: (...x: tf.Tensor[]) => tf.Tensor, ...x: tf.Tensor[]): number[] {
  const plain = values(fn(...x));
  expect(values(jit(fn)(...x))).toEqual(plain);
  return plain;
}

const table = tf.tensor2d([0, 1, 10, 11, 20, 21], [3, 2]);
const ids = tf.tensor2d([2, 0, 2, 1], [2, 2], "int32");

describe("gatherRows", () => {
  test("takes a row per id, of ids of any shape", () => {
    expect(both((t, i) => gatherRows(t!, i!), table, ids)).toEqual([20, 21, 0, 1, 20, 21, 10, 11]);
  });

  test("its gradient adds what came from each row", () => {
    const weights = tf.tensor3d([1, 2, 3, 4, 5, 6, 7, 8], [2, 2, 2]);
    const gradient = (t: tf.Tensor, i: tf.Tensor) => tf.grad((x) => gatherRows(x, i).mul(weights).sum())(t);
    expect(both((t, i) => gradient(t!, i!), table, ids)).toEqual([3, 4, 7, 8, 6, 8]);
  });
});

describe("gatherLast", () => {
  const x = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
  const columns = tf.tensor2d([2, 0, 1, 1], [2, 2], "int32");

  test("takes from each row its own columns", () => {
    expect(both((a, c) => gatherLast(a!, c!), x, columns)).toEqual([3, 1, 5, 5]);
  });

  test("its gradient goes to these columns, twice where one is taken twice", () => {
    const gradient = (a: tf.Tensor, c: tf.Tensor) =>
      tf.grad((y) =>
        gatherLast(y, c)
          .mul(tf.tensor2d([1, 2, 3, 4], [2, 2]))
          .sum(),
      )(a);
    expect(both((a, c) => gradient(a!, c!), x, columns)).toEqual([2, 0, 1, 0, 7, 0]);
  });
});

describe("dynamicSlice and dynamicUpdateSlice", () => {
  const x = tf.tensor2d([0, 1, 2, 3, 4, 5, 6, 7, 8], [3, 3]);
  const one = tf.scalar(1, "int32");

  test("take and replace a block whose place is a tensor", () => {
    expect(both((a, i) => dynamicSlice(a!, [i!, 0], [2, 2]), x, one)).toEqual([3, 4, 6, 7]);
    expect(both((a, i) => dynamicUpdateSlice(a!, tf.tensor2d([-1, -2], [1, 2]), [i!, i!]), x, one)).toEqual([
      0, 1, 2, 3, -1, -2, 6, 7, 8,
    ]);
  });

  test("their gradients are each other", () => {
    const slice = (a: tf.Tensor, i: tf.Tensor) =>
      tf.grad((y) =>
        dynamicSlice(y, [i, 0], [2, 2])
          .mul(tf.tensor2d([1, 2, 3, 4], [2, 2]))
          .sum(),
      )(a);
    expect(both((a, i) => slice(a!, i!), x, one)).toEqual([0, 0, 0, 1, 2, 0, 3, 4, 0]);
    const update = (block: tf.Tensor, i: tf.Tensor, which: number) =>
      tf.grads((a, b) => dynamicUpdateSlice(a, b, [i, 0]).mul(x).sum())([tf.zeros([3, 3]), block])[which]!;
    const block = tf.ones([1, 2]);
    expect(both((b, i) => update(b!, i!, 0), block, one)).toEqual([0, 1, 2, 0, 0, 5, 6, 7, 8]);
    expect(both((b, i) => update(b!, i!, 1), block, one)).toEqual([3, 4]);
  });
});

describe("threefry", () => {
  // The known answers of the Random123 library, kat_vectors, threefry2x32 with 20 rounds.
  test.each([
    [
      [0, 0],
      [0, 0],
      [0x6b200159, 0x99ba4efe],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x1cb996fc, 0xbb002be7],
    ],
    [
      [0x243f6a88, 0x85a308d3],
      [0x13198a2e, 0x03707344],
      [0xc4923a9c, 0x483df7a0],
    ],
  ])("of counter %j and key %j", (counter, key, expected) => {
    const word = (value: number) => tf.scalar(value | 0, "int32");
    const words = jit((a: tf.Tensor, b: tf.Tensor, c: tf.Tensor, d: tf.Tensor) => threefry([a, b], [c, d]));
    const bits = words(word(counter[0]!), word(counter[1]!), word(key[0]!), word(key[1]!)).map(
      (x) => values(x)[0]! >>> 0,
    );
    expect(bits).toEqual(expected);
  });
});

describe("randomUniform", () => {
  const draw = (seed: number, counter: number) => both(() => randomUniform(seed, counter, [1000]));

  test("is a pure function of seed and counter, the same bits compiled and not", () => {
    expect(draw(1, 2)).toEqual(draw(1, 2));
    expect(draw(1, 2)).not.toEqual(draw(1, 3));
    expect(draw(1, 2)).not.toEqual(draw(2, 2));
  });

  test("is uniform on [0, 1): mean 1/2, variance 1/12", () => {
    const u = draw(7, 0);
    const mean = u.reduce((a, b) => a + b) / u.length;
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.03);
    expect(u.reduce((a, b) => a + (b - mean) ** 2, 0) / u.length).toBeCloseTo(1 / 12, 2);
    expect(Math.min(...u)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...u)).toBeLessThan(1);
  });

  test("takes tensors as seed and counter", () => {
    const f = (s: tf.Tensor, c: tf.Tensor) => randomUniform(s, c, [8]);
    expect(both((s, c) => f(s!, c!), tf.scalar(1, "int32"), tf.scalar(2, "int32"))).toEqual(
      values(randomUniform(1, 2, [8])),
    );
  });
});

describe("topK", () => {
  const x = tf.tensor2d([3, 1, 2, 0, 5, 4], [2, 3]);

  test("gives values and columns, largest first", () => {
    expect(both((a) => topK(a!, 2).values, x)).toEqual([3, 2, 5, 4]);
    expect(both((a) => topK(a!, 2).indices, x)).toEqual([0, 2, 1, 2]);
  });

  test("its values have a gradient", () => {
    expect(
      both(
        (a) =>
          tf.grad((y) =>
            topK(y, 2)
              .values.mul(tf.tensor2d([1, 2, 3, 4], [2, 2]))
              .sum(),
          )(a!),
        x,
      ),
    ).toEqual([1, 0, 2, 0, 3, 4]);
  });
});
