/** Gradient clipping, with the arithmetic of torch.nn.utils.clip_grad_norm_. It can be traced by `jit`. */
import { tf } from "tfjs-jit";

/**
 * Scales all gradients together so that their global norm, sqrt(sum of all squares), is at most `maxNorm` (above 0, Infinity for no
 * limit): each is multiplied by min(1, maxNorm / (norm + 1e-6)). `norm` is the norm before.
 */
export function clipByGlobalNorm(
  grads: Record<string, tf.Tensor>,
  maxNorm: tf.Tensor | number,
): { grads: Record<string, tf.Tensor>; norm: tf.Scalar } {
  const squares = Object.values(grads).map((grad) => tf.sum(tf.square(grad)));
  const norm = tf.sqrt(tf.addN(squares)) as tf.Scalar;
  const scale = tf.minimum(tf.div(maxNorm, tf.add(norm, 1e-6)), 1);
  return { grads: Object.fromEntries(Object.entries(grads).map(([name, grad]) => [name, tf.mul(grad, scale)])), norm };
}
