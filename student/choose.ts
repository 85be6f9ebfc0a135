/**
 * The choice of a token from its logits. Shape suffixes: M completions, V vocabulary, as J blocks of L tokens; X random
 * numbers of a completion.
 */
import { gatherLast, gatherRows, tf, topK } from "tfjs-jit";

/** How tokens are chosen; a temperature is a tensor, so that a schedule of it needs one program. */
export type Choice = {
  /** 0 takes the likeliest. */
  readonly temperature: 0 | tf.Tensor;
  readonly topK: number;
  readonly topP: number;
  /** Of the log-probabilities. */
  readonly logprobTemperature: 1 | tf.Tensor;
};

/**
 * A token of each completion from softmax(logits / temperature), and its ln p at the temperature of log-probabilities.
 * `uniform_MX` holds `numbersPerToken(V)` numbers in [0, 1) a completion.
 */
export function chooseTokens(
  logits_MV: tf.Tensor2D,
  uniform_MX: tf.Tensor2D,
  choice: Choice,
): { id_M: tf.Tensor1D; logprob_M: tf.Tensor1D } {
  const { temperature, logprobTemperature } = choice;
  const id_M =
    temperature === 0
      ? likeliest(logits_MV)
      : sampleTokens(keepLikely(logits_MV.div(temperature), choice), gumbel(uniform_MX));
  const scaled_MV = logprobTemperature === 1 ? logits_MV : logits_MV.div<tf.Tensor2D>(logprobTemperature);
  const chosen_M = gatherLast(scaled_MV, id_M.reshape([-1, 1])).reshape([-1]);
  return { id_M, logprob_M: chosen_M.sub(scaled_MV.logSumExp(1)) };
}

/** L: a power of two near the root of V. */
const blockLength = (V: number): number => 2 ** Math.ceil(Math.log2(V) / 2);

/** X: one for each block, and one for each token of a block. */
export const numbersPerToken = (V: number): number => Math.ceil(V / blockLength(V)) + blockLength(V);

/** Standard Gumbel noise: the largest of scores + noise is distributed as softmax(scores). 0 would be an infinite one. */
const gumbel = (uniform: tf.Tensor2D): tf.Tensor2D => {
  const positive = uniform.maximum<tf.Tensor2D>(2 ** -25);
  return positive.log().neg().log().neg();
};

/** A token of each row from softmax(scores): first a block of the vocabulary by its mass, then a token of that block. */
function sampleTokens(scores_MV: tf.Tensor2D, noise_MX: tf.Tensor2D): tf.Tensor1D {
  const [M, V] = scores_MV.shape;
  const L = blockLength(V);
  const J = Math.ceil(V / L);
  const blocks_MJL: tf.Tensor3D = tf.concat2d([scores_MV, tf.fill([M, J * L - V], -Infinity)], 1).reshape([M, J, L]);
  const largest_M11 = blocks_MJL.max([1, 2], true);
  const mass_MJ = blocks_MJL.sub(largest_M11).exp().sum(2).log();
  const block_M = likeliest(mass_MJ.add(noise_MX.slice([0, 0], [M, J])));
  const row_M = tf.range(0, M * J, J, "int32").add(block_M);
  const scores_ML = gatherRows<tf.Rank.R2>(blocks_MJL.reshape([M * J, L]), row_M);
  const token_M = likeliest(scores_ML.add(noise_MX.slice([0, J], [M, L])));
  return block_M.mul(tf.scalar(L, "int32")).add(token_M);
}

/** The column of each row's largest value, the first of equals. */
const likeliest = (scores: tf.Tensor2D): tf.Tensor1D => firstColumn(scores.greaterEqual(scores.max(1, true)));

/** The first column of each row that is true, or the number of columns: two reductions, which XLA makes fast. */
export function firstColumn(is: tf.Tensor2D): tf.Tensor1D {
  const [rows, columns] = is.shape;
  const column = tf.range(0, columns, 1, "int32").reshape([1, columns]).tile([rows, 1]);
  return tf.where(is, column, tf.fill([rows, columns], columns, "int32")).min(1);
}

/** The logits with those at -infinity that top-k, then top-p, rule out. Equal logits stay or go together. */
function keepLikely(logits_MV: tf.Tensor2D, { topK: k, topP: p }: Choice): tf.Tensor2D {
  const [M, V] = logits_MV.shape;
  const drop = (x_MV: tf.Tensor2D, least_M1: tf.Tensor): tf.Tensor2D =>
    tf.where(x_MV.less(least_M1), tf.fill([M, V], -Infinity), x_MV);
  let kept_MV = logits_MV;
  if (k > 0 && k < V) kept_MV = drop(kept_MV, topK(kept_MV, k).values.slice([0, k - 1], [M, 1]));
  if (p === 1) return kept_MV;
  const sorted_MV = topK(kept_MV, V).values;
  const massBefore_MV = tf.cumsum(tf.softmax(sorted_MV), 1, true);
  const least_M1 = tf.where(massBefore_MV.less(p), sorted_MV, tf.fill([M, V], Infinity)).min(1, true);
  return drop(kept_MV, least_M1);
}
