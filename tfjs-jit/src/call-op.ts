// TensorFlow's ops by name, and what the ops of this package are made of. Nothing here has a gradient.

import { type Attribute, backend, native, tf } from "./native.js";
import { currentTrace, typeAttribute } from "./trace.js";

// XLA's own ops have no kernel outside it; of TensorFlow's, XLA takes Slice with a fixed begin only, and compiles each anew.
export const usesXla = () => currentTrace()?.usesXla ?? false;

/** Any TensorFlow op by name, eagerly or traced. It has no gradient: wrap it in tf.customGrad for one. */
export function op(
  type: string,
  attributes: readonly Attribute[],
  inputs: readonly tf.Tensor[],
  outputs = 1,
): tf.Tensor[] {
  const ids = backend.getInputTensorIds(inputs);
  return backend.binding
    .executeOp(type, attributes, ids, outputs)
    .map((metadata) => backend.createOutputTensor(metadata));
}

export const dtypeAttribute = (name: string, tensor: { dtype: string }) =>
  typeAttribute(name, backend.getDTypeInteger(tensor.dtype));
export const intAttribute = (name: string, value: number): Attribute => ({ name, type: native.TF_ATTR_INT, value });
export const int32 = (values: readonly number[]) => tf.tensor1d(Int32Array.from(values), "int32");

/** A position along an axis: a number, or an int32 scalar tensor. */
export type Index = number | tf.Tensor;

export const scalar = (index: Index): tf.Tensor => (typeof index === "number" ? tf.scalar(index, "int32") : index);

export const indices = (start: readonly Index[]): tf.Tensor =>
  start.every((index) => typeof index === "number") ? int32(start as number[]) : tf.stack(start.map(scalar));

/** GatherV2: unlike tf.gather it does not read the indices back to check them. */
export function gather(table: tf.Tensor, ids: tf.Tensor, axis: number, batchDims: number): tf.Tensor {
  const attributes = [
    dtypeAttribute("Tparams", table),
    dtypeAttribute("Tindices", ids),
    typeAttribute("Taxis", native.TF_INT32),
    intAttribute("batch_dims", batchDims),
  ];
  return op("GatherV2", attributes, [table, ids, tf.scalar(axis, "int32")])[0]!;
}
