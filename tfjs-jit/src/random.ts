// Random numbers as a pure function of a seed and a counter, from integer ops alone: TensorFlow's kernels and XLA's give
// different numbers for their stateless ops, these give the same bits compiled or not, and on every device.

import { type Index, op, scalar } from "./call-op.js";
import { native, tf } from "./native.js";
import { typeAttribute } from "./trace.js";

const bits = (type: string, a: tf.Tensor, b: tf.Tensor): tf.Tensor =>
  op(type, [typeAttribute("T", native.TF_INT32)], [a, b])[0]!;
const constant = (value: number) => tf.scalar(value | 0, "int32");

/** x shifted right by r bits with zeros coming in: TensorFlow's shift of an int32 repeats the sign. */
const shiftRight = (x: tf.Tensor, r: number) =>
  bits("BitwiseAnd", bits("RightShift", x, constant(r)), constant(2 ** (32 - r) - 1));

const rotateLeft = (x: tf.Tensor, r: number) =>
  bits("BitwiseOr", bits("LeftShift", x, constant(r)), shiftRight(x, 32 - r));

const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
] as const;

/** The parity constant of Threefish (Skein 1.3, table 4), lower word. */
const PARITY = 0x1bd11bda;

/**
 * Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.1): two
 * int32 words of random bits for two of counter and two of key, elementwise.
 */
export function threefry([x0, x1]: [tf.Tensor, tf.Tensor], [k0, k1]: [tf.Tensor, tf.Tensor]): [tf.Tensor, tf.Tensor] {
  const keys = [k0, k1, bits("BitwiseXor", bits("BitwiseXor", k0, k1), constant(PARITY))];
  let a = x0.add(keys[0]!);
  let b = x1.add(keys[1]!);
  for (let group = 0; group < 5; group++) {
    for (const r of ROTATIONS[group % 2]!) {
      a = a.add(b);
      b = bits("BitwiseXor", rotateLeft(b, r), a);
    }
    a = a.add(keys[(group + 1) % 3]!);
    b = b.add(keys[(group + 2) % 3]!).add(constant(group + 1));
  }
  return [a, b];
}

/**
 * Uniform numbers in [0, 1), multiples of 2^-24: a pure function of (seed, counter, position). Seed and counter are
 * integers or int32 scalar tensors.
 */
export function randomUniform(seed: Index, counter: Index, shape: readonly number[]): tf.Tensor {
  return tf.tidy(() => {
    const size = shape.reduce((a, b) => a * b, 1);
    const half = Math.ceil(size / 2);
    const positions = tf.range(0, half, 1, "int32");
    const words = threefry([positions, tf.zerosLike(positions)], [scalar(seed), scalar(counter)]);
    return shiftRight(tf.concat(words).slice(0, size), 8)
      .cast("float32")
      .mul(2 ** -24)
      .reshape([...shape]);
  });
}
