// int32 tensors as bits, for numbers that are packed into them: tfjs has no dtype of 8 or 4 bits.

import { op } from "./call-op.js";
import { native, type tf } from "./native.js";
import { typeAttribute } from "./trace.js";

const ofInt32 =
  (type: string) =>
  (x: tf.Tensor, y: tf.Tensor): tf.Tensor =>
    op(type, [typeAttribute("T", native.TF_INT32)], [x, y])[0]!;

/** The bits that int32 tensors have in common; these three broadcast, and have no gradient. */
export const bitwiseAnd = ofInt32("BitwiseAnd");

/** int32 x with its bits moved up by 0..31 places. */
export const leftShift = ofInt32("LeftShift");

/** int32 x with its bits moved down by 0..31 places; the sign fills up. */
export const rightShift = ofInt32("RightShift");
