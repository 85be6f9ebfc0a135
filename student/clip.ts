/** Gradient clipping, with the arithmetic of torch.nn.utils.clip_grad_norm_. It can be traced by `jit`. */
import { optimizationBarrier, tf } from "tfjs-jit";

/** The norm of all gradients together: sqrt(sum of all squares). */
export const globalNorm = (gradients: readonly tf.Tensor[]): tf.Scalar =>
  tf.sqrt(tf.addN(optimizationBarrier(gradients.map(squares)).map((part) => tf.sum(part)))) as tf.Scalar;

/** XLA sums up to so many numbers as they come. */
const ROW = 32;

/**
 * What adds up to the sum of squares: sums of short rows. For one sum of all XLA would keep the squares, which are as large
 * as the gradient, and take four times as long; and it would make one of two sums, if there was no barrier between them.
 */
const squares = (gradient: tf.Tensor): tf.Tensor =>
  gradient.size % ROW === 0 ? tf.sum(tf.square(gradient.reshape([-1, ROW])), 1) : tf.square(gradient);

/**
 * What all gradients are multiplied by, so that their norm together is at most `maxNorm` (above 0, Infinity for no limit):
 * min(1, maxNorm / (norm + 1e-6)).
 */
export const clipFactor = (norm: tf.Scalar, maxNorm: tf.Tensor | number): tf.Scalar =>
  tf.minimum(tf.div(maxNorm, tf.add(norm, 1e-6)), 1);
