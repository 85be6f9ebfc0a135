// Products of bfloat16 matrices that are not rounded to bfloat16.

import { toFloat32 } from "./bfloat16.js";
import { describe, isBfloat16, native, tf } from "./native.js";
import { addOp, currentTrace, stringAttribute, symbolOf, tensorOf, typeAttribute } from "./trace.js";

/**
 * a @ b of two bfloat16 matrices as float32, in which the products of two bfloat16 numbers are exact and summed: a GPU's
 * units do that at bfloat16's speed. Without XLA the matrices are cast to float32 first. No gradient.
 */
export function matMulFloat32(a: tf.Tensor2D, b: tf.Tensor2D, transposeA = false, transposeB = false): tf.Tensor2D {
  if (!isBfloat16(a) || !isBfloat16(b))
    throw new TypeError(`matMulFloat32: expected bfloat16 matrices, got ${describe(a)} and ${describe(b)}`);
  const trace = currentTrace();
  if (trace === null || !trace.usesXla)
    return tf.matMul(toFloat32(a) as tf.Tensor2D, toFloat32(b) as tf.Tensor2D, transposeA, transposeB);
  const attributes = [
    typeAttribute("LhsT", native.TF_BFLOAT16),
    typeAttribute("RhsT", native.TF_BFLOAT16),
    stringAttribute("dimension_numbers", contracting(transposeA ? 0 : 1, transposeB ? 1 : 0)),
    stringAttribute("precision_config", ""),
    typeAttribute("preferred_element_type", native.TF_FLOAT),
  ];
  const inputs = [symbolOf(trace, a), symbolOf(trace, b)];
  return tensorOf(trace, addOp(trace, "XlaDotV2", attributes, inputs)[0]!) as tf.Tensor2D;
}

/** DotDimensionNumbers{lhs_contracting_dimensions: [a], rhs_contracting_dimensions: [b]} (xla/xla_data.proto), serialised. */
const contracting = (a: number, b: number): string => String.fromCharCode(0x0a, 1, a, 0x12, 1, b);
