/**
 * A teacher known by its k likeliest tokens: from its logits in this process, or from what a server tells over HTTP.
 *
 * Shape suffixes: N tokens, V vocabulary, k the teacher's likeliest tokens.
 */
import { columnSums, tf, topK } from "tfjs-jit";
import { TrainingError } from "./errors.js";

/** A number that is fixed when the loss is traced, or a scalar tensor that follows a schedule. */
export type Coefficient = number | tf.Tensor;

/** A teacher known by its k likeliest tokens, at the temperature of the loss. */
export interface TopK {
  /** int32; no token twice in a row. */
  ids_Nk: tf.Tensor2D;
  /** Natural logarithms. Any constant may be added to a row if no tail is used. */
  logprobs_Nk: tf.Tensor2D;
  /** ln of the probability of all other tokens together. Without it there is no tail to compare. */
  tail_N?: tf.Tensor1D;
}

/** The k likeliest tokens of a teacher in this process, from its whole logits: exact at every temperature, tail included. */
export function topKOfLogits(teacher_NV: tf.Tensor2D, k: number, temperature: Coefficient): TopK {
  const logp_NV = tf.logSoftmax(atTemperature(teacher_NV, temperature)) as tf.Tensor2D;
  const { values, indices } = topK(logp_NV, k);
  const top = { ids_Nk: indices as tf.Tensor2D, logprobs_Nk: values as tf.Tensor2D };
  return k === teacher_NV.shape[1] ? top : { ...top, tail_N: logSumExpOutside(logp_NV, top.ids_Nk) };
}

/**
 * The k likeliest tokens as a server tells them: log-probabilities at temperature 1, and ln of the rest of the mass. At any other
 * temperature the rest is unknown, and there is no tail.
 */
export function topKOfServer(scores: Required<TopK>, temperature: Coefficient): TopK {
  // -Infinity, of a token that is ruled out or of an empty rest, would make 0 * Infinity = NaN.
  const finite = (logprobs: tf.Tensor) => tf.maximum(logprobs, -1e4);
  const { ids_Nk } = scores;
  const logprobs_Nk = finite(scores.logprobs_Nk) as tf.Tensor2D;
  if (temperature !== 1) return { ids_Nk, logprobs_Nk: atTemperature(logprobs_Nk, temperature) };
  return { ids_Nk, logprobs_Nk, tail_N: finite(scores.tail_N) as tf.Tensor1D };
}

/** @throws TrainingError where there are no `k` likeliest tokens. */
export function checkTopK({ k, vocabulary }: { k: number; vocabulary: number }): void {
  if (!Number.isInteger(k) || k < 1 || k > vocabulary)
    throw new TrainingError(`loss_top_k: expected an integer from 1 to ${vocabulary} (the vocabulary), got ${k}`);
}

/**
 * Refuses a loss that a teacher over HTTP cannot serve: at a temperature other than 1 the probability of the tokens
 * outside its top k is unknown, so there is no tail.
 *
 * @throws TrainingError that says which settings would do.
 */
export function checkRemoteTopK(o: { k: number; vocabulary: number; temperature: number; addTail: boolean }): void {
  if (o.temperature !== 1 && o.addTail && o.k < o.vocabulary) {
    throw new TrainingError(
      `loss_temperature ${o.temperature} with loss_add_tail: true needs the teacher's whole distribution, but a teacher over HTTP tells ` +
        `log-probabilities of its top ${o.k} tokens at temperature 1: set loss_temperature: 1, or loss_add_tail: false, or ` +
        `loss_top_k: ${o.vocabulary} (the whole vocabulary)`,
    );
  }
}

/** Logits, or log-probabilities up to a constant, divided by a temperature. */
export const atTemperature = (logits: tf.Tensor2D, temperature: Coefficient): tf.Tensor2D =>
  temperature === 1 ? logits : tf.div(logits, temperature);

/**
 * ln of the sum of exp(logits) over the tokens that are not in ids_Nk. Summing them, instead of subtracting the others from 1, keeps
 * a tail of 1e-20 as exact as one of 0.1.
 */
export function logSumExpOutside(logits_NV: tf.Tensor2D, ids_Nk: tf.Tensor2D): tf.Tensor1D {
  const [[N, k], V] = [ids_Nk.shape, logits_NV.shape[1]];
  const isInside_NV = tf.greater(columnSums(tf.fill([N, k], 1), ids_Nk, V), 0);
  const outside = tf.customGrad((...args) => {
    const [z_NV, save] = args as [tf.Tensor, tf.GradSaveFunc];
    const rest_NV = tf.where(isInside_NV, tf.fill(logits_NV.shape, -Infinity), z_NV);
    const max_N1 = tf.max(rest_NV, 1, true);
    const value_N1 = tf.add(max_N1, tf.log(tf.sum(tf.exp(tf.sub(rest_NV, max_N1)), 1, true)));
    save([rest_NV, value_N1]);
    const gradFunc = (dy_N: tf.Tensor, saved: tf.Tensor[]) =>
      tf.mul(dy_N.expandDims(1), tf.exp(tf.sub(saved[0]!, saved[1]!)));
    return { value: value_N1.reshape([N]), gradFunc };
  });
  return outside(logits_NV) as tf.Tensor1D;
}
