/**
 * The head: logits of the last hidden states. A large head is worked through a part of the vocabulary at a time, where
 * otherwise a second tensor as large as the head would exist: one in int8, or in bfloat16 where products in float32 need a
 * copy of it, and the gradient.
 *
 * Shape suffixes: W tokens, D model, V vocabulary, P entries of a part of the vocabulary.
 */
import {
  device,
  dynamicSlice,
  dynamicUpdateSlice,
  isBfloat16,
  matMulFloat32,
  optimizationBarrier,
  readsBfloat16,
  switchCase,
  tf,
  toBfloat16,
  toFloat32,
  whileLoop,
} from "tfjs-jit";
import { softCap } from "./attention.js";
import { type ComputeDtype, MAX_HEAD_PART } from "./compute.js";
import { dequantised, int8Slice, isQuantised, type Matrix } from "./quantised.js";

/** Logits [W, V] as what they are made of: at V = 256000 a thousand tokens' are 1 GB, so they are made a part at a time. */
export type LazyLogits = {
  /** After the final norm. */
  readonly hidden_WD: tf.Tensor2D;
  readonly softCap: number | null;
} & Head;

/** A head's matrix, and what its products are computed in; sums and logits are float32 whatever that is. */
type Head = {
  /** bfloat16 and int8 learn nothing. */
  readonly embedding_VD: Matrix;
  /** @default "float32" */
  readonly dtype?: ComputeDtype;
};

/** Soft-capped logits [W, V]. They have a gradient unless the head is worked through in parts. */
export const logitsOf = (lazy: LazyLogits, maxPart?: number): tf.Tensor2D =>
  softCap(rawLogits(lazy, maxPart), lazy.softCap);

/** Logits [W, V] before the soft cap. */
export function rawLogits(lazy: Omit<LazyLogits, "softCap">, maxPart: number = MAX_HEAD_PART[device]): tf.Tensor2D {
  const { hidden_WD, embedding_VD, dtype = "float32" } = lazy;
  if (!isInParts(lazy, maxPart)) return times(hidden_WD, valuesOf(embedding_VD), dtype);
  const [W, V] = [hidden_WD.shape[0], embedding_VD.shape[0]];
  return forEachPart(V, partsOf(embedding_VD, maxPart), tf.fill([W, V], 0) as tf.Tensor2D, (logits_WV, part) => {
    const logits_WP = times(hidden_WD, floatRowsOf(embedding_VD, part), dtype);
    return dynamicUpdateSlice(logits_WV, logits_WP, [0, part.begin]) as tf.Tensor2D;
  });
}

/** a @ b, transposed first where asked, as float32. */
const product = (
  dtype: ComputeDtype,
  a: tf.Tensor2D,
  b: tf.Tensor2D,
  transposeA = false,
  transposeB = false,
): tf.Tensor2D =>
  dtype === "float32"
    ? tf.matMul(a, b, transposeA, transposeB)
    : matMulFloat32(toBfloat16(a) as tf.Tensor2D, toBfloat16(b) as tf.Tensor2D, transposeA, transposeB);

/** A head from this many elements on, 32 MB, is in no cache, and what its product costs is to read it. */
const LARGE_HEAD = 2 ** 23;

/** hidden @ headT, [W, V]. */
export const times = (hidden_WD: tf.Tensor2D, head_VD: tf.Tensor2D, dtype: ComputeDtype = "float32"): tf.Tensor2D =>
  tf.customGrad((hidden, head, save) => {
    const [hidden_WD, head_VD] = [hidden, head] as [tf.Tensor2D, tf.Tensor2D];
    (save as tf.GradSaveFunc)([hidden_WD, head_VD]);
    const isTurned = device === "cpu" && !readsBfloat16 && head_VD.size >= LARGE_HEAD;
    return {
      value: isTurned ? timesLarge(hidden_WD, head_VD) : product(dtype, hidden_WD, head_VD, false, true),
      gradFunc: (dLogits_WV: tf.Tensor2D, saved: tf.Tensor[]) => {
        const [hidden_WD, head_VD] = saved as [tf.Tensor2D, tf.Tensor2D];
        return [product(dtype, dLogits_WV, head_VD), product(dtype, dLogits_WV, hidden_WD, true)];
      },
    };
  })(hidden_WD, head_VD) as tf.Tensor2D;

/**
 * The same as the transpose of head @ hiddenT: XLA's products on a CPU are up to ten times as fast with a large matrix on
 * the left. The barrier keeps XLA from turning it round again.
 */
function timesLarge(hidden_WD: tf.Tensor2D, head_VD: tf.Tensor2D): tf.Tensor2D {
  const [logits_VW] = optimizationBarrier([tf.matMul(head_VD, hidden_WD, false, true)]);
  return logits_VW!.transpose();
}

/** The gradient [W, D] by the hidden states, given that by the logits before the soft cap. */
export function hiddenGradient(dRaw_WV: tf.Tensor2D, head: Head, maxPart: number = MAX_HEAD_PART[device]): tf.Tensor2D {
  const { embedding_VD, dtype = "float32" } = head;
  if (!isInParts(head, maxPart)) return product(dtype, dRaw_WV, valuesOf(embedding_VD));
  const [W, [V, D]] = [dRaw_WV.shape[0], embedding_VD.shape];
  return forEachPart(V, partsOf(embedding_VD, maxPart), tf.fill([W, D], 0) as tf.Tensor2D, (sum_WD, part) => {
    return sum_WD.add(product(dtype, newColumnsOf(dRaw_WV, part), floatRowsOf(embedding_VD, part)));
  });
}

/** The head's gradient [V, D] so far, and that of these tokens: in place, where its product would be as large as it. */
export function addHeadGradient(
  sum_VD: tf.Tensor2D,
  dRaw_WV: tf.Tensor2D,
  { hidden_WD, dtype = "float32" }: Pick<LazyLogits, "hidden_WD" | "dtype">,
  maxPart: number = MAX_HEAD_PART[device],
): tf.Tensor2D {
  return forEachPart(sum_VD.shape[0], partsOf(sum_VD, maxPart), sum_VD, (sum_VD, part) =>
    addRows(sum_VD, product(dtype, newColumnsOf(dRaw_WV, part), hidden_WD, true), part),
  );
}

const valuesOf = (head_VD: Matrix): tf.Tensor2D => (isQuantised(head_VD) ? dequantised(head_VD) : head_VD);

const partsOf = ({ shape: [V, D] }: Matrix, maxPart: number): number => Math.ceil((V * D) / maxPart);

/** Whether the head is worked through in parts, in which case its logits have no gradient by themselves. */
export const isInParts = ({ embedding_VD, dtype = "float32" }: Head, maxPart: number): boolean =>
  (isQuantised(embedding_VD) || (isBfloat16(embedding_VD) && dtype === "float32" && !readsBfloat16)) &&
  partsOf(embedding_VD, maxPart) > 1;

/** One of the parts of equal size that cover an axis. Where they do not divide it, the last one begins early. */
export type Part = {
  readonly index: tf.Scalar;
  readonly begin: tf.Scalar;
  readonly size: number;
  /** [size]: 0 where the part before has been already, else 1. */
  readonly isNew: tf.Tensor1D;
};

/** A loop over the parts of an axis of that length. Traced, it has no gradient. */
export function forEachPart<V>(length: number, parts: number, vars: V, body: (vars: V, part: Part) => V): V {
  const size = Math.ceil(length / Math.min(parts, length));
  const int = (value: number): tf.Scalar => tf.scalar(value, "int32");
  return whileLoop(
    ({ index }) => index.mul(int(size)).less(int(length)),
    ({ index, vars }) => {
      const end: tf.Scalar = index.mul(int(size));
      const begin: tf.Scalar = tf.minimum(end, int(length - size));
      const isNew = tf.range(0, size, 1, "int32").add(begin).greaterEqual(end).cast("float32") as tf.Tensor1D;
      return { index: index.add<tf.Scalar>(int(1)), vars: body(vars, { index, begin, size, isNew }) };
    },
    { index: int(0), vars },
  ).vars;
}

/** The part's rows of a tensor of any rank. */
export function rowsOf<T extends tf.Tensor>(x: T, { begin, size }: Part): T {
  const [, ...others] = x.shape;
  return dynamicSlice(x, [begin, ...others.map(() => 0)], [size, ...others]) as T;
}

/**
 * The part's rows in float32. Each part is a branch of its own: XLA would take a conversion of the whole head out of the
 * loop, but none out of a branch.
 */
function floatRowsOf(embedding_VD: Matrix, { index, size }: Part): tf.Tensor2D {
  const [V, D] = embedding_VD.shape;
  const branches = Array.from({ length: Math.ceil(V / size) }, (_, part) => () => {
    const begin = Math.min(part * size, V - size);
    if (isQuantised(embedding_VD)) return dequantised(int8Slice(embedding_VD, begin, size));
    return toFloat32(embedding_VD.slice([begin, 0], [size, D])) as tf.Tensor2D;
  });
  return switchCase(index, branches);
}

/** x with something added to the part's rows. */
export const addRows = (x: tf.Tensor2D, rows: tf.Tensor2D, part: Part): tf.Tensor2D =>
  dynamicUpdateSlice(x, rowsOf(x, part).add(rows), [part.begin, 0]) as tf.Tensor2D;

/** The part's columns, 0 in those that another part has had. */
const newColumnsOf = (x_WV: tf.Tensor2D, { begin, size, isNew }: Part): tf.Tensor2D =>
  dynamicSlice(x_WV, [0, begin], [x_WV.shape[0], size]).mul(isNew);
