/** Gradient clipping, with the arithmetic of torch.nn.utils.clip_grad_norm_. It can be traced by `jit`. */
import { tf } from "tfjs-jit";

/** The norm of all gradients together: sqrt(sum of all squares). */
export const globalNorm = (gradients: readonly tf.Tensor[]): tf.Scalar =>
  tf.sqrt(tf.addN(gradients.map((gradient) => tf.sum(tf.square(gradient))))) as tf.Scalar;

/**
 * What all gradients are multiplied by, so that their norm together is at most `maxNorm` (above 0, Infinity for no limit):
 * min(1, maxNorm / (norm + 1e-6)).
 */
export const clipFactor = (norm: tf.Scalar, maxNorm: tf.Tensor | number): tf.Scalar =>
  tf.minimum(tf.div(maxNorm, tf.add(norm, 1e-6)), 1);
