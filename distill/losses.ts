/**
 * What distillation minimises: the KL family between a student and a teacher, token by token, in nats.
 *
 * Every function here is made of tensor operations of static shape and can be traced by `jit`. Logits arrive as the models give
 * them, with Gemma's final soft cap already applied on both sides. Only the student has a gradient: the teacher is data, even
 * where its logits come from the same parameters.
 *
 * Shape suffixes: N tokens (any flattening of rows and positions), V vocabulary, k the teacher's likeliest tokens,
 * K classes compared (V, k, or k and a tail).
 */
import { gatherLast, tf } from "tfjs-jit";
import { atTemperature, type Coefficient, logSumExpOutside, type TopK } from "./top-k.js";

/** How student and teacher are compared. */
export interface DivergenceOptions {
  /** Between 0, which is KL(teacher || student), and 1, which is KL(student || teacher). */
  beta: Coefficient;
  /** Divides both models' logits (`loss_temperature`), above 0. The loss is not multiplied by its square. */
  temperature: Coefficient;
}

/**
 * Generalised Jensen-Shannon divergence of each token, in nats (GKD, arXiv 2306.13649). With p the teacher and q the
 * student after softmax(logits / temperature), and M = beta p + (1 - beta) q:
 *
 *     beta = 0   KL(p || q)
 *     beta = 1   KL(q || p)
 *     between    beta KL(p || M) + (1 - beta) KL(q || M)
 *
 * It jumps at both ends: between them it goes to 0 with beta (or with 1 - beta), as in the paper and in TRL.
 *
 * @throws RangeError if the two vocabularies differ, or an option is out of range.
 */
export function divergence(student_NV: tf.Tensor2D, teacher_NV: tf.Tensor2D, options: DivergenceOptions): tf.Tensor1D {
  checkOptions(options);
  if (String(student_NV.shape) !== String(teacher_NV.shape)) {
    throw new RangeError(
      `divergence: student logits have shape [${student_NV.shape}], teacher logits [${teacher_NV.shape}]: ` +
        "both need the same tokens and the same vocabulary",
    );
  }
  const { beta, temperature } = options;
  return divergenceOfLogits(atTemperature(student_NV, temperature), atTemperature(teacher_NV, temperature), beta);
}

/**
 * `divergence` on the teacher's k likeliest tokens, which are the support for every beta. With a tail both sides get one more
 * class, the rest of their probability; without it both are renormalised on the k tokens. If k is the whole vocabulary, there is no tail.
 *
 * @throws RangeError if `addTail` is asked of a teacher whose tail is unknown (see `checkRemoteTopK`), or an option is out of range.
 */
export function divergenceTopK(
  student_NV: tf.Tensor2D,
  teacher: TopK,
  options: DivergenceOptions & { addTail: boolean },
): tf.Tensor1D {
  checkOptions(options);
  const { ids_Nk, logprobs_Nk, tail_N } = teacher;
  const { beta, temperature, addTail } = options;
  const z_NV = atTemperature(student_NV, temperature);
  const z_Nk = gatherLast(z_NV, ids_Nk) as tf.Tensor2D;
  if (!addTail || ids_Nk.shape[1] === student_NV.shape[1]) return divergenceOfLogits(z_Nk, logprobs_Nk, beta);

  if (tail_N === undefined) {
    throw new RangeError("divergenceTopK: addTail needs the teacher's tail_N, got none");
  }
  const rest_N = logSumExpOutside(z_NV, ids_Nk);
  return divergenceOfLogits(appendClass(z_Nk, rest_N), appendClass(logprobs_Nk, tail_N), beta);
}

/** ln softmax(logits)[id] of each token, in nats, at most 0. ids_N is int32; what it holds at masked tokens does not matter. */
export function logProbOf(logits_NV: tf.Tensor2D, ids_N: tf.Tensor1D): tf.Tensor1D {
  const logp_NV = tf.logSoftmax(logits_NV) as tf.Tensor2D;
  return gatherLast(logp_NV, ids_N.reshape([-1, 1]) as tf.Tensor2D).reshape([-1]) as tf.Tensor1D;
}

/** Cross-entropy of each token against one target id, in nats: -ln softmax(logits)[target]. */
export function crossEntropy(logits_NV: tf.Tensor2D, targets_N: tf.Tensor1D): tf.Tensor1D {
  return tf.neg(logProbOf(logits_NV, targets_N));
}

/**
 * Mean over counted tokens: sum(values * mask) / tokens, and 0 if none is counted. mask_N is 1 on completion tokens, 0 elsewhere.
 * `tokens` is a scalar; give the count of the whole optimiser step where the values are only a part of it, so that the parts add
 * up to the mean over the step.
 */
export function tokenMean(values_N: tf.Tensor1D, mask_N: tf.Tensor1D, tokens: tf.Tensor = tf.sum(mask_N)): tf.Scalar {
  const counted_N = tf.where(tf.greater(mask_N, 0), values_N, tf.zerosLike(values_N));
  return tf.div(tf.sum(counted_N), tf.maximum(tokens, 1));
}

function checkOptions({ beta, temperature }: DivergenceOptions): void {
  if (typeof beta === "number" && !(beta >= 0 && beta <= 1))
    throw new RangeError(`beta: expected a number from 0 to 1, got ${beta}`);
  if (typeof temperature === "number" && !(temperature > 0 && temperature < Infinity)) {
    throw new RangeError(`loss_temperature: expected a number above 0, got ${temperature}`);
  }
}

const appendClass = (x_Nk: tf.Tensor2D, last_N: tf.Tensor1D): tf.Tensor2D =>
  tf.concat([x_Nk, last_N.reshape([-1, 1]) as tf.Tensor2D], 1);

/** The divergence of softmax(student) and softmax(teacher). Its gradient is written out: it needs no derivative of M and none of p. */
function divergenceOfLogits(student_NK: tf.Tensor2D, teacher_NK: tf.Tensor2D, beta: Coefficient): tf.Tensor1D {
  const logp_NK = tf.logSoftmax(teacher_NK);
  const ofLogq = tf.customGrad((...args) => {
    const [logq_NK, save] = args as [tf.Tensor, tf.GradSaveFunc];
    save([logq_NK, logp_NK]);
    const gradFunc = (dy_N: tf.Tensor, saved: tf.Tensor[]) =>
      tf.mul(dy_N.expandDims(1), slope(saved[0]!, saved[1]!, beta));
    return { value: tf.sum(terms(logq_NK, logp_NK, beta), 1), gradFunc };
  });
  return ofLogq(tf.logSoftmax(student_NK)) as tf.Tensor1D;
}

/** What is summed over the classes. */
function terms(logq: tf.Tensor, logp: tf.Tensor, beta: Coefficient): tf.Tensor {
  if (beta === 0) return tf.mul(tf.exp(logp), tf.sub(logp, logq));
  if (beta === 1) return tf.mul(tf.exp(logq), tf.sub(logq, logp));
  const logM = logMixture(logq, logp, beta);
  const ofTeacher = tf.mul(tf.exp(logp), tf.sub(logp, logM));
  const ofStudent = tf.mul(tf.exp(logq), tf.sub(logq, logM));
  return tf.add(tf.mul(ofTeacher, beta), tf.mul(ofStudent, tf.sub(1, beta)));
}

/** The derivative of their sum by logq, up to a multiple of q, which the gradient of log-softmax takes away. */
function slope(logq: tf.Tensor, logp: tf.Tensor, beta: Coefficient): tf.Tensor {
  if (beta === 0) return tf.neg(tf.exp(logp));
  const other = beta === 1 ? logp : logMixture(logq, logp, beta);
  return tf.mul(tf.mul(tf.exp(logq), tf.sub(logq, other)), beta === 1 ? 1 : tf.sub(1, beta));
}

/** ln(beta p + (1 - beta) q), which stays finite where p and q underflow. */
function logMixture(logq: tf.Tensor, logp: tf.Tensor, beta: Coefficient): tf.Tensor {
  const a = tf.add(logp, tf.log(beta));
  const b = tf.add(logq, tf.log1p(tf.neg(beta)));
  return tf.add(tf.maximum(a, b), tf.log1p(tf.exp(tf.neg(tf.abs(tf.sub(a, b))))));
}
