// Sums of rows by the row of a table that they belong to: the gradient of picking rows. Shape suffixes: M rows to sum, D
// their width, V rows of the table.

import { toDtypeOf, toFloat32 } from "./bfloat16.js";
import { gather, int32, usesXla } from "./call-op.js";
import { device } from "./environment.js";
import { tf } from "./native.js";

/** [V, D]: in row v the sum of the rows m of [M, D] with ids[m] = v, in whichever order. An id is in 0..V-1. */
export const rowSums = (rows_MD: tf.Tensor, ids_M: tf.Tensor1D, V: number): tf.Tensor =>
  device === "gpu" && usesXla() && ids_M.size > 0 && V <= MAX_ROWS
    ? sortedRowSums(rows_MD, ids_M, V)
    : tf.unsortedSegmentSum(rows_MD, ids_M, V);

/** Ids are sorted as float32, in which whole numbers up to this one are exact. */
const MAX_ROWS = 2 ** 24;

/**
 * The same in an order that never changes, and with no scatter: on a GPU scattered rows are added as they come, and the
 * ops that XLA puts in their place where each run must give the same bits made a training step 300 times as long. The rows
 * are sorted by id, each is added to those before it that have its id, in log2 M steps (the scan of Hillis and Steele,
 * CACM 29, 1986, within segments), and each row of the table looks up the last that has its id.
 */
export function sortedRowSums(rows_MD: tf.Tensor, ids_M: tf.Tensor1D, V: number): tf.Tensor {
  const [M, D] = rows_MD.shape as [number, number];
  // Equal ones stay in their order.
  const { values, indices } = tf.topk(ids_M.toFloat().neg(), M);
  const sorted_M = values.neg();
  let sums_MD = gather(toFloat32(rows_MD), indices, 0, 0);
  for (let step = 1; step < M; step *= 2) {
    const isSame = sorted_M.slice([step]).equal(sorted_M.slice([0], [M - step]));
    const before_MD = tf.where(isSame.expandDims(1), sums_MD.slice([0, 0], [M - step, D]), 0);
    sums_MD = sums_MD.add(
      before_MD.pad([
        [step, 0],
        [0, 0],
      ]),
    );
  }
  // How many ids are at most v, by bisection.
  const rows_V = tf.range(0, V, 1, "int32");
  let count_V = tf.fill([V], 0, "int32") as tf.Tensor1D;
  for (let step = 2 ** Math.floor(Math.log2(M)); step >= 1; step /= 2) {
    const next_V = count_V.add(int32([step]));
    const id_V = gather(sorted_M, tf.minimum(next_V, int32([M])).sub(int32([1])), 0, 0);
    const isIn = next_V.lessEqual(int32([M])).logicalAnd(id_V.lessEqual(rows_V.toFloat()));
    count_V = tf.where(isIn, next_V, count_V) as tf.Tensor1D;
  }
  const last_V = tf.maximum(count_V.sub(int32([1])), int32([0]));
  const hasRow = gather(sorted_M, last_V, 0, 0).equal(rows_V.toFloat());
  return toDtypeOf(rows_MD, tf.where(hasRow.expandDims(1), gather(sums_MD, last_V, 0, 0), 0));
}

/** [N, V]: in column v of row n the sum of the values k of [N, K] with columns[n, k] = v. */
export function columnSums(values_NK: tf.Tensor, columns_NK: tf.Tensor, V: number): tf.Tensor {
  const [N, K] = values_NK.shape as [number, number];
  if (device === "gpu" && usesXla()) return comparedColumnSums(values_NK, columns_NK, V);
  // Cell (n, v) of the flattened result is number n V + v.
  const cells_NK = columns_NK.add(tf.range(0, N, 1, "int32").mul(tf.scalar(V, "int32")).reshape([N, 1]));
  return tf
    .unsortedSegmentSum(values_NK.reshape([N * K]), cells_NK.reshape([N * K]) as tf.Tensor1D, N * V)
    .reshape([N, V]);
}

/** The same with no scatter: XLA compares and adds K values a cell, and keeps none of the comparisons. */
export function comparedColumnSums(values_NK: tf.Tensor, columns_NK: tf.Tensor, V: number): tf.Tensor {
  const isHere = columns_NK.expandDims(1).equal(tf.range(0, V, 1, "int32").reshape([1, V, 1]));
  return tf.where(isHere, values_NK.expandDims(1), 0).sum(-1);
}
