/** Products of bfloat16 matrices with float32 sums. Values are whole numbers and halves, exact in bfloat16. */
import { isBfloat16, jit, matMulFloat32, tf, toBfloat16 } from "tfjs-jit";
import { expect, test } from "vitest";

const a = tf.tensor2d([1, 2, 3, -4, 5, 0.5], [2, 3]);
const b = tf.tensor2d([7, -1, 2, 256, 1, 1], [3, 2]);
/** 1 * 7 + 2 * 2 + 3 * 1 = 14 ...; 513 and 1284.5 are no bfloat16 numbers. */
const product = [14, 514, -17.5, 1284.5];

test.each([
  [false, false],
  [true, false],
  [false, true],
  [true, true],
])("are not rounded to bfloat16, transposed %s and %s, with XLA and without", (transposeA, transposeB) => {
  const given = [transposeA ? a.transpose() : a, transposeB ? b.transpose() : b].map(toBfloat16) as [
    tf.Tensor2D,
    tf.Tensor2D,
  ];
  const f = (x: tf.Tensor2D, y: tf.Tensor2D) => matMulFloat32(x, y, transposeA, transposeB);
  for (const run of [f, jit(f), jit(f, { xla: false })]) {
    const got = run(...given);
    expect(isBfloat16(got)).toBe(false);
    expect(got.arraySync().flat()).toEqual(product);
  }
});

test("take bfloat16 only", () => {
  expect(() => matMulFloat32(a, toBfloat16(b) as tf.Tensor2D)).toThrow(
    "matMulFloat32: expected bfloat16 matrices, got float32[2,3] and bfloat16[3,2]",
  );
});
