// bfloat16 tensors: half the memory of float32, the same range, 8 bits of precision. tfjs sees float32; hooks.ts tells ops.

import { backend, describe, dtypeName, isBfloat16, native, nativeDtype, tf } from "./native.js";
import { addOp, currentTrace, symbolOf, tensorOf, typeAttribute } from "./trace.js";

export { isBfloat16 };

/** An op of one input as it is written here, whatever the hooks do with ops that tfjs runs. */
function convert(type: string, attributes: Parameters<typeof native.executeOp>[1], x: tf.Tensor): tf.Tensor {
  const trace = currentTrace();
  if (trace !== null) return tensorOf(trace, addOp(trace, type, attributes, [symbolOf(trace, x)])[0]!);
  return backend.createOutputTensor(native.executeOp(type, attributes, backend.getInputTensorIds([x]), 1)[0]!);
}

export const castAttributes = (from: number, to: number) => [
  typeAttribute("SrcT", from),
  typeAttribute("DstT", to),
  { name: "Truncate", type: native.TF_ATTR_BOOL, value: false },
];

function castTo(name: string, x: tf.Tensor, to: number): tf.Tensor {
  if (x.dtype !== "float32") throw new TypeError(`${name}: expected float32 or bfloat16, got ${describe(x)}`);
  const from = nativeDtype(x);
  if (from === to) return x.clone();
  return tf.customGrad((input) => ({
    value: convert("Cast", castAttributes(from, to), input as tf.Tensor),
    gradFunc: (dy: tf.Tensor) => castTo(name, dy, from),
  }))(x);
}

/** x rounded to bfloat16, to nearest even. Its gradient has the dtype of x: float32 weights keep float32 gradients. */
export const toBfloat16 = (x: tf.Tensor): tf.Tensor => castTo("toBfloat16", x, native.TF_BFLOAT16);

/** x as float32, exactly. Its gradient has the dtype of x: what computed in bfloat16 has bfloat16 gradients. */
export const toFloat32 = (x: tf.Tensor): tf.Tensor => castTo("toFloat32", x, native.TF_FLOAT);

/** x in the dtype of another. */
export const toDtypeOf = (other: tf.Tensor, x: tf.Tensor): tf.Tensor =>
  isBfloat16(other) ? toBfloat16(x) : toFloat32(x);

/** Zeros of TensorFlow's dtype of that number. Not tf.zeros, which makes them in JavaScript first: stacks are large. */
export function zerosOf(dtype: number, shape: readonly number[]): tf.Tensor {
  const trace = currentTrace();
  // TensorFlow computes Fill once before it compiles, and copies what comes out from graph to graph.
  if (trace?.usesXla) {
    const attributes = [typeAttribute("dtype", dtype), { name: "init", type: native.TF_ATTR_BOOL, value: true }];
    const sizes = tf.tensor1d([...shape], "int32");
    return tensorOf(trace, addOp(trace, "Empty", attributes, [symbolOf(trace, sizes)])[0]!);
  }
  if (dtype === native.TF_BFLOAT16) return toBfloat16(tf.fill([...shape], 0));
  const name = dtypeName(dtype) as "float32" | "int32" | "bool";
  return name === "bool" ? tf.zeros([...shape], name) : tf.fill([...shape], 0, name);
}

/**
 * A bfloat16 tensor of raw bits, as checkpoints hold them, with no copy in between: on a CPU the tensor may share the
 * array's memory, which must not change any more.
 */
export function bfloat16Tensor(bits: Uint8Array | Uint16Array, shape: readonly number[]): tf.Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  if (bits.byteLength !== 2 * size)
    throw new RangeError(`bfloat16Tensor: shape [${shape}] needs ${2 * size} bytes, got ${bits.byteLength}`);
  const bytes = new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
  const id = native.createTensor([...shape, 2], native.TF_UINT8, bytes);
  const attributes = [typeAttribute("T", native.TF_UINT8), typeAttribute("type", native.TF_BFLOAT16)];
  const [metadata] = native.executeOp("Bitcast", attributes, [id], 1);
  native.deleteTensor(id);
  return backend.createOutputTensor(metadata!);
}
