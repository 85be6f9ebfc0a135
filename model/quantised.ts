/**
 * Quantised matrices on the device: packed into int32 tensors, as values of float32 while they are multiplied.
 * docs/quantisation.md describes the parts.
 *
 * Shape suffixes: R rows, C columns, W int32 of a row, N blocks of absmaxes, M tokens.
 */
import { bitwiseAnd, cond, device, gatherRows, leftShift, optimizationBarrier, rightShift, tf } from "tfjs-jit";
import { BLOCK, DYNAMIC_MAP, type Int8, NESTED_BLOCK, NF4, type Nf4, type Nf4Blocks } from "./quantise.js";

/** Ends of the names of a matrix's tensors: "model.layers.0.mlp.up_proj.weight" is kept as "....weight.codes" and so on. */
const PARTS = ["codes", "scale", "absmax", "nested_absmax", "offset"] as const;
type Part = (typeof PARTS)[number];

/** In int8 codes and scale; in NF4 codes, absmax, and with double quantisation nested_absmax and offset. */
export type Parts = Readonly<Partial<Record<Part, tf.Tensor>>>;

export type Quantised = { readonly shape: readonly [rows: number, columns: number]; readonly parts: Parts };

/** A matrix of a model, whose values are there or are made when they are needed. */
export type Matrix = tf.Tensor2D | Quantised;

export const isQuantised = (matrix: Matrix): matrix is Quantised => !(matrix instanceof tf.Tensor);

/** The names of a matrix's tensors, of all kinds. */
export const partNames = (name: string): string[] => PARTS.map((part) => `${name}.${part}`);

/** Whether a name is that of a quantised matrix's tensor. */
export const isPart = (name: string): boolean => PARTS.some((part) => name.endsWith(`.weight.${part}`));

/** The matrix of that name. */
export function matrixOf(weights: Readonly<Record<string, tf.Tensor>>, name: string): Matrix {
  const codes = weights[`${name}.codes`];
  if (codes === undefined) return weights[name] as tf.Tensor2D;
  const parts: Parts = Object.fromEntries(
    PARTS.flatMap((part) => (`${name}.${part}` in weights ? [[part, weights[`${name}.${part}`]]] : [])),
  );
  const [rows, words] = codes.shape as [number, number];
  return { shape: [rows, words * (parts.scale ? 4 : 8)], parts };
}

/** Packed bytes, four in an int32, the first in its low bits. */
function packed(bytes: Uint8Array | Int8Array, shape: readonly number[]): tf.Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  if (bytes.length === 4 * size && bytes.byteOffset % 4 === 0) {
    return tf.tensor(new Int32Array(bytes.buffer, bytes.byteOffset, size), [...shape], "int32");
  }
  const words = new Int32Array(size);
  new Uint8Array(words.buffer).set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length));
  return tf.tensor(words, [...shape], "int32");
}

/** The tensors of a matrix of that many rows: codes int32 [R, C/4], scale float32 [R]. */
export const int8Tensors = ({ codes, scale }: Int8, rows: number): Parts => ({
  codes: packed(codes, [rows, codes.length / rows / 4]),
  scale: tf.tensor1d(scale),
});

/**
 * The tensors of a matrix of that many rows: codes int32 [R, C/8], absmax int32 [N, 64] (its last row filled up),
 * nested_absmax float32 [N], offset float32; without double quantisation codes and absmax float32 [R C / 64].
 */
export function nf4Tensors(matrix: Nf4 | Nf4Blocks, rows: number): Parts {
  const codes = packed(matrix.codes, [rows, matrix.codes.length / rows / 4]);
  if (!("offset" in matrix)) return { codes, absmax: tf.tensor1d(matrix.absmax) };
  const { absmax, nestedAbsmax, offset } = matrix;
  return {
    codes,
    absmax: packed(absmax, [nestedAbsmax.length, NESTED_BLOCK / 4]),
    nested_absmax: tf.tensor1d(nestedAbsmax),
    offset: tf.scalar(offset),
  };
}

const int = (...values: number[]): tf.Tensor => tf.tensor1d(Int32Array.from(values), "int32");

/** Places in a table to its values. */
const lookUp = (table: Float32Array, places: tf.Tensor): tf.Tensor =>
  gatherRows(tf.tensor2d(table, [table.length, 1]), places).reshape(places.shape);

/** The bits of each int32 from those places on, side by side. */
function unpack(words: tf.Tensor, places: readonly number[], bits: number): tf.Tensor {
  const [rows, count] = words.shape as [number, number];
  const apart = bitwiseAnd(rightShift(words.reshape([rows, count, 1]), int(...places)), int(2 ** bits - 1));
  return apart.reshape([rows, count * places.length]);
}

/** The values [R, C] in float32. */
export function dequantised({ shape: [rows, columns], parts }: Quantised): tf.Tensor2D {
  const { codes, scale, absmax } = parts as Required<Parts>;
  if (scale !== undefined) {
    // The byte at the top and down again, for its sign.
    const bytes = rightShift(leftShift(codes.reshape([rows, columns / 4, 1]), int(24, 16, 8, 0)), int(24));
    return bytes
      .cast("float32")
      .reshape([rows, columns])
      .mul(scale.reshape([rows, 1]));
  }
  // Of each byte the high half is first.
  const values = lookUp(NF4, unpack(codes, [4, 0, 12, 8, 20, 16, 28, 24], 4));
  const blocks = (rows * columns) / BLOCK;
  const most = absmax.dtype === "int32" ? absmaxes(parts, blocks) : absmax;
  return values
    .reshape([blocks, BLOCK])
    .mul(most.reshape([blocks, 1]))
    .reshape([rows, columns]);
}

/** The absmaxes [blocks] of a matrix with double quantisation. */
function absmaxes(parts: Parts, blocks: number): tf.Tensor {
  const { absmax, nested_absmax, offset } = parts as Required<Parts>;
  const nested = lookUp(DYNAMIC_MAP, unpack(absmax, [0, 8, 16, 24], 8)).mul(nested_absmax.reshape([-1, 1]));
  return nested.add(offset).reshape([-1]).slice([0], [blocks]);
}

/** a @ b, or a @ bT. */
type Product = (a: tf.Tensor2D, b: tf.Tensor2D, isTransposed: boolean) => tf.Tensor2D;

/**
 * x @ wT for a matrix [out, in]. The gradient flows to x alone. Compiled, the values of one matrix exist at a time, in a
 * gradient too: they are made again for it, and not before its turn.
 */
export function timesQuantised(x: tf.Tensor2D, { shape, parts }: Quantised, product: Product): tf.Tensor2D {
  const names = Object.keys(parts);
  const times = (y: tf.Tensor, tensors: readonly tf.Tensor[], isTransposed: boolean) =>
    inTurn([y, ...tensors], [y.shape[0]!, shape[isTransposed ? 0 : 1]], ([now, ...rest]) => {
      const values = dequantised({ shape, parts: Object.fromEntries(names.map((name, i) => [name, rest[i]!])) });
      return product(now as tf.Tensor2D, values, isTransposed);
    });
  return tf.customGrad((input, save) => {
    const tensors = Object.values(parts);
    (save as tf.GradSaveFunc)(tensors);
    return {
      value: times(input as tf.Tensor, tensors, true),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => times(dy, saved, false),
    };
  })(x);
}

/**
 * What `make` makes of the tensors, a matrix of that shape: not before all of them are there. Of them the second is int32
 * [R, W]. XLA for a CPU does not keep to a barrier when it orders ops: layer by layer the values of all matrices would exist
 * at once. There `make` is a branch, which is always taken, and XLA does not know that.
 */
function inTurn(
  tensors: readonly tf.Tensor[],
  shape: [number, number],
  make: (tensors: readonly tf.Tensor[]) => tf.Tensor2D,
): tf.Tensor2D {
  const ready = optimizationBarrier(tensors);
  // Without XLA the barrier is nothing, and ops run in order.
  if (device !== "cpu" || ready[0] === tensors[0]) return make(ready);
  const bit = bitwiseAnd(ready[1]!.slice([0, 0], [1, 1]), int(1)).reshape([]);
  return cond(
    bit.greaterEqual(tf.scalar(0, "int32")),
    () => make(ready),
    () => tf.fill(shape, 0),
  );
}

/** Rows of an int8 matrix: int32 ids [M] to float32 [M, C]. */
export function int8Rows({ shape: [, columns], parts }: Quantised, ids_M: tf.Tensor1D): tf.Tensor2D {
  const { codes, scale } = parts as Required<Parts>;
  const picked = { codes: gatherRows(codes, ids_M), scale: gatherRows(scale.reshape([-1, 1]), ids_M) };
  return dequantised({ shape: [ids_M.shape[0], columns], parts: picked });
}

/** The `rows` rows of an int8 matrix from `begin` on. */
export function int8Slice({ shape: [, columns], parts }: Quantised, begin: number, rows: number): Quantised {
  const { codes, scale } = parts as Required<Parts>;
  const sliced = { codes: codes.slice([begin, 0], [rows, codes.shape[1]!]), scale: scale.slice([begin], [rows]) };
  return { shape: [rows, columns], parts: sliced };
}
