/** What a GPU adds without scattering is what TensorFlow's sums of segments are. Whole numbers, so that sums are exact. */
import { isBfloat16, jit, tf, toBfloat16 } from "tfjs-jit";
import { expect, test } from "vitest";
import { comparedColumnSums, sortedRowSums } from "../../tfjs-jit/src/row-sums.js";

const whole = (shape: number[], multiplier: number) =>
  tf.tidy(() => tf.range(0, tf.util.sizeFromShape(shape)).mul(multiplier).mod(17).sub(8).reshape(shape));

// M ids of V: one; all the same; more than there are rows; the first and the last; each once, backwards.
test.each([
  [1, 1, [0]],
  [7, 3, [1, 1, 1, 1, 1, 1, 1]],
  [9, 4, [3, 0, 3, 3, 0, 2, 3, 0, 3]],
  [2, 1000, [999, 0]],
  [5, 5, [4, 3, 2, 1, 0]],
])("sums of %i rows by id into a table of %i", (M, V, given) => {
  const rows = whole([M, 3], 5);
  const ids = tf.tensor1d(given, "int32");
  const expected = tf.unsortedSegmentSum(rows, ids, V).arraySync();
  const sums = (rows: tf.Tensor, ids: tf.Tensor1D) => sortedRowSums(rows, ids, V);
  for (const run of [sums, jit(sums)]) {
    expect(run(rows, ids).arraySync()).toEqual(expected);
    const half = run(toBfloat16(rows), ids);
    expect(isBfloat16(half)).toBe(true);
    expect(half.arraySync()).toEqual(expected);
  }
});

test("sums of columns: two of a row's three are the same", () => {
  const values = tf.tensor2d([1, 2, 4, 8, 16, 32], [2, 3]);
  const columns = tf.tensor2d([3, 0, 3, 1, 2, 1], [2, 3], "int32");
  const sums = (values: tf.Tensor, columns: tf.Tensor) => comparedColumnSums(values, columns, 4);
  for (const run of [sums, jit(sums)]) {
    expect(run(values, columns).arraySync()).toEqual([
      [2, 0, 0, 5],
      [0, 40, 16, 0],
    ]);
  }
});
