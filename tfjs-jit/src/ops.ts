// Ops that tfjs lacks, or has in a form that cannot be traced; each with its gradient where one exists.
// Shape suffixes: V rows of a table, D its width, N rows, K columns picked.

import { zerosOf } from "./bfloat16.js";
import { dtypeAttribute, gather, type Index, indices, int32, intAttribute, op, usesXla } from "./call-op.js";
import { addCustomCall } from "./custom-call.js";
import { readsBfloat16 } from "./environment.js";
import { isBfloat16, native, nativeDtype, tf } from "./native.js";
import { columnSums, rowSums } from "./row-sums.js";
import { currentTrace, symbolOf, tensorOf, typeAttribute } from "./trace.js";

/** Rows of a table: [V, D] and int32 ids of any shape S to [...S, D]. An id outside 0..V-1 is undefined. */
export function gatherRows<R extends tf.Rank = tf.Rank>(table_VD: tf.Tensor, ids: tf.Tensor): tf.Tensor<R> {
  const [V, D] = table_VD.shape as [number, number];
  return tf.customGrad((table, save) => {
    (save as tf.GradSaveFunc)([ids]);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => {
      const ids = saved[0]!;
      return rowSums(dy.reshape([ids.size, D]), ids.reshape([ids.size]), V);
    };
    return { value: rowsOf(table as tf.Tensor, ids) as tf.Tensor<R>, gradFunc };
  })(table_VD);
}

/** Of a bfloat16 table XLA would make a float32 copy on a CPU, all of it, to gather a few rows. */
function rowsOf(table_VD: tf.Tensor, ids: tf.Tensor): tf.Tensor {
  const trace = currentTrace();
  if (trace === null || !trace.usesXla || !readsBfloat16 || !isBfloat16(table_VD)) return gather(table_VD, ids, 0, 0);
  const [V, D] = table_VD.shape as [number, number];
  const result = { dtype: native.TF_BFLOAT16, shape: [...ids.shape, D] };
  const inputs = [symbolOf(trace, table_VD), symbolOf(trace, ids)];
  return tensorOf(trace, addCustomCall(trace, "heddle_gather", [V, D, ids.size], inputs, result));
}

/** From each row its own columns: [N, V] and int32 columns [N, K] to [N, K]. A column outside 0..V-1 is undefined. */
export function gatherLast(x_NV: tf.Tensor, columns_NK: tf.Tensor): tf.Tensor {
  const V = x_NV.shape[1]!;
  return tf.customGrad((x, save) => {
    (save as tf.GradSaveFunc)([columns_NK]);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => columnSums(dy, saved[0]!, V);
    return { value: gather(x as tf.Tensor, columns_NK, 1, 1), gradFunc };
  })(x_NV);
}

/** The block of `size` that begins at `start`, one index per axis; it must lie within x. */
export function dynamicSlice(x: tf.Tensor, start: readonly Index[], size: readonly number[]): tf.Tensor {
  return tf.tidy(() => {
    const begin = indices(start);
    return tf.customGrad((input, save) => {
      (save as tf.GradSaveFunc)([begin]);
      const value = slice(input as tf.Tensor, begin, int32(size));
      const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => update(zerosOf(nativeDtype(dy), x.shape), dy, saved[0]!);
      return { value, gradFunc };
    })(x);
  });
}

/** x with the block that begins at `start` (one index per axis) replaced by `block`; it must lie within x. */
export function dynamicUpdateSlice(x: tf.Tensor, block: tf.Tensor, start: readonly Index[]): tf.Tensor {
  return tf.tidy(() => {
    const begin = indices(start);
    return tf.customGrad((input, value, save) => {
      (save as tf.GradSaveFunc)([begin]);
      const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const at = tf.unstack(saved[0]!);
        return [update(dy, zerosOf(nativeDtype(dy), block.shape), saved[0]!), dynamicSlice(dy, at, block.shape)];
      };
      return { value: update(input as tf.Tensor, value as tf.Tensor, begin), gradFunc };
    })(x, block);
  });
}

function slice(x: tf.Tensor, begin: tf.Tensor, size: tf.Tensor): tf.Tensor {
  const T = dtypeAttribute("T", x);
  const [type, index] = usesXla() ? (["XlaDynamicSlice", "Tindices"] as const) : (["Slice", "Index"] as const);
  return op(type, [T, typeAttribute(index, native.TF_INT32)], [x, begin, size])[0]!;
}

function update(x: tf.Tensor, block: tf.Tensor, begin: tf.Tensor): tf.Tensor {
  const T = dtypeAttribute("T", x);
  if (usesXla()) {
    return op("XlaDynamicUpdateSlice", [T, typeAttribute("Tindices", native.TF_INT32)], [x, block, begin])[0]!;
  }
  const end = begin.add(int32(block.shape));
  const masks = ["begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"].map((name) =>
    intAttribute(name, 0),
  );
  const strides = int32(block.shape.map(() => 1));
  return op(
    "TensorStridedSliceUpdate",
    [T, typeAttribute("Index", native.TF_INT32), ...masks],
    [x, begin, end, strides, block],
  )[0]!;
}

/** The k largest of each row, largest first: values [..., k] with a gradient, and their int32 columns. */
export function topK(x: tf.Tensor, k: number): { values: tf.Tensor; indices: tf.Tensor } {
  const V = x.shape.at(-1)!;
  const shape = [...x.shape.slice(0, -1), k];
  const columns = tf.topk(x, k).indices;
  const values = gatherLast(x.reshape([-1, V]), columns.reshape([-1, k])).reshape(shape);
  return { values, indices: columns };
}
