/** AdamW (arXiv 1711.05101) as a pure function on tensors, with the arithmetic of torch.optim.AdamW. It can be traced by `jit`. */
import { tf } from "tfjs-jit";

/** One parameter, its gradient, its two moments (all of one shape) and the numbers of this step. */
export interface AdamWInputs {
  param: tf.Tensor;
  grad: tf.Tensor;
  /** Moving average of the gradient; zeros before the first step. */
  m: tf.Tensor;
  /** Moving average of the squared gradient; zeros before the first step. */
  v: tf.Tensor;
  /** Scalar: 1 on the first step. */
  step: tf.Tensor;
  /** Scalar. A tensor, so that a schedule does not need a new trace a step. */
  learningRate: tf.Tensor;
  /** At least 0 and below 1; torch's default is 0.9. */
  beta1: number;
  /** Above 0 and below 1; torch's default is 0.999. */
  beta2: number;
  /** Added to the denominator outside the root; torch's default is 1e-8. */
  epsilon: number;
  /** Decoupled: the parameter shrinks by learningRate * weightDecay, whatever its gradient. 0 for none. */
  weightDecay: tf.Tensor | number;
}

/**
 * The parameter and its moments after one step t:
 *
 *     m <- m + (1 - beta1) (g - m)            v <- beta2 v + (1 - beta2) g^2
 *     p <- p (1 - lr wd) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 */
export function adamwUpdate(inputs: AdamWInputs): { param: tf.Tensor; m: tf.Tensor; v: tf.Tensor } {
  const { grad, learningRate, beta1, beta2, epsilon, weightDecay } = inputs;
  const step = tf.cast(inputs.step, "float32");
  const m = tf.add(inputs.m, tf.mul(tf.sub(grad, inputs.m), 1 - beta1));
  const v = tf.add(tf.mul(inputs.v, beta2), tf.mul(tf.square(grad), 1 - beta2));

  const denominator = tf.add(tf.div(tf.sqrt(v), tf.sqrt(biasCorrection(beta2, step))), epsilon);
  const stepSize = tf.div(learningRate, biasCorrection(beta1, step));
  const decayed = tf.mul(inputs.param, tf.sub(1, tf.mul(learningRate, weightDecay)));
  return { param: tf.sub(decayed, tf.mul(stepSize, tf.div(m, denominator))), m, v };
}

/** 1 - beta^step. By expm1, because 1 - 0.999 in float32 has only four digits left, where torch computes it in float64. */
const biasCorrection = (beta: number, step: tf.Tensor): tf.Tensor => tf.neg(tf.expm1(tf.mul(step, Math.log(beta))));
