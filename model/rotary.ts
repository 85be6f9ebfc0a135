/**
 * Rotary positions of lists of tokens.
 *
 * Shape suffixes: M tokens of a list, N heads, H head size.
 */
import { tf } from "tfjs-jit";
import type { ModelConfig } from "./config.js";
import type { ByType, Rope } from "./config-keys.js";

/** What turns the heads of each token; one for both types of layers where their frequencies are the same. */
export function rotations(positions_M: tf.Tensor1D, { rope, headDim }: ModelConfig): ByType<Rotation> {
  const { sliding_attention: sliding, full_attention: full } = rope;
  const ofFull = rotation(positions_M, full, headDim);
  const isSame = sliding.theta === full.theta && sliding.factor === full.factor;
  return { full_attention: ofFull, sliding_attention: isSame ? ofFull : rotation(positions_M, sliding, headDim) };
}

export interface Rotation {
  readonly cos_M1H: tf.Tensor3D;
  /** Negated in its first half. */
  readonly sin_M1H: tf.Tensor3D;
}

/**
 * Rotary position embedding: turns each pair (x_i, x_{i + H/2}) by position * theta^(-2i/H) / factor (arXiv 2104.09864).
 * Frequencies are rounded to float32 and multiplied in float32, as in transformers.
 */
function rotation(positions_M: tf.Tensor1D, { theta, factor }: Rope, headDim: number): Rotation {
  const half = headDim / 2;
  const frequencies = tf.tensor1d(Array.from({ length: half }, (_, i) => Math.fround(theta ** (-i / half)) / factor));
  const angles_M1H = positions_M.toFloat().reshape([-1, 1, 1]).mul(frequencies);
  return {
    cos_M1H: tf.concat([angles_M1H.cos(), angles_M1H.cos()], -1) as tf.Tensor3D,
    sin_M1H: tf.concat([angles_M1H.sin().neg(), angles_M1H.sin()], -1) as tf.Tensor3D,
  };
}

export function rotate(x_MNH: tf.Tensor3D, { cos_M1H, sin_M1H }: Rotation): tf.Tensor3D {
  const [low, high] = tf.split(x_MNH, 2, -1) as [tf.Tensor3D, tf.Tensor3D];
  return x_MNH.mul(cos_M1H).add(tf.concat([high, low], -1).mul(sin_M1H));
}
