/**
 * Losses and log-probabilities from the last hidden states, a chunk of tokens at a time: [tokens, vocabulary] never
 * exists. Each is given as a function of logits (losses.ts), which sees those of a chunk.
 *
 * A loss's gradient is computed together with its value, while a chunk's logits are there: nothing is kept for a
 * backward pass, and nothing is computed twice.
 *
 * Shape suffixes: W tokens, C tokens of a chunk, D model, V vocabulary.
 */
import { device, dynamicUpdateSlice, onFreshTape, tf } from "tfjs-jit";
import { softCap } from "../model/attention.js";
import { MAX_HEAD_PART, MAX_LOGITS } from "../model/compute.js";
import {
  addHeadGradient,
  addRows,
  forEachPart,
  hiddenGradient,
  isInParts,
  type LazyLogits,
  logitsOf,
  rawLogits,
  rowsOf,
} from "../model/head.js";
import { isQuantised } from "../model/quantised.js";

/** The chunk's rows of a tensor [W, ...]: [C, ...]. */
export type ChunkOf = <T extends tf.Tensor>(x: T) => T;

/** A value of each token of a chunk, from its logits and the chunk's part of what else there is by token. */
export type TokenFunction = (logits_CV: tf.Tensor2D, chunkOf: ChunkOf) => tf.Tensor1D;

const all: ChunkOf = (x) => x;

/** Elements of the largest chunk of logits, of which up to seven tensors exist at a time, and of the largest part of a head. */
export type Limits = { readonly logits: number; readonly head: number };

const LIMITS: Limits = { logits: MAX_LOGITS[device], head: MAX_HEAD_PART[device] };

/**
 * Sum over tokens of weight * loss. Tokens of weight 0 are not seen, be their loss NaN. The gradient flows to the hidden
 * states and to the head, not through `chunkOf` nor to what else `lossOf` refers to.
 */
export function weightedLoss(
  student: LazyLogits,
  weight_W: tf.Tensor1D,
  lossOf: TokenFunction,
  limits = LIMITS,
): tf.Scalar {
  const isWhole = chunksOf(student, limits) === 1 && !isInParts(student, limits.head);
  if (isWhole) return weightedSum(lossOf(logitsOf(student), all), weight_W);
  const inputs = isQuantised(student.embedding_VD) ? [student.hidden_WD] : [student.hidden_WD, student.embedding_VD];
  const loss = tf.customGrad((...args) => {
    const save = args.pop() as unknown as tf.GradSaveFunc;
    const [hidden_WD, embedding_VD = student.embedding_VD] = args as unknown[] as [tf.Tensor2D, tf.Tensor2D?];
    const of = { ...student, hidden_WD, embedding_VD };
    const { value, dHidden_WD, dEmbedding_VD } = onFreshTape(() => lossAndGradients(of, weight_W, lossOf, limits));
    save([dHidden_WD, dEmbedding_VD].slice(0, inputs.length));
    return { value, gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => saved.map((gradient) => gradient.mul(dy)) };
  });
  return loss(...inputs) as tf.Scalar;
}

/** Mean of a loss over counted tokens, as `tokenMean` of losses.ts; `tokens` is the count of the whole optimiser step. */
export const meanLoss = (
  student: LazyLogits,
  counted_W: tf.Tensor1D,
  tokens: tf.Tensor,
  lossOf: TokenFunction,
): tf.Scalar => weightedLoss(student, counted_W, lossOf).div(tf.maximum(tokens, 1));

/** The value of every token, [W]. It has no gradient. */
export function tokenValues(model: LazyLogits, ofLogits: TokenFunction, limits = LIMITS): tf.Tensor1D {
  const chunks = chunksOf(model, limits);
  if (chunks === 1) return ofLogits(logitsOf(model, limits.head), all);
  const W = model.hidden_WD.shape[0];
  return forEachPart(W, chunks, tf.fill([W], 0) as tf.Tensor1D, (values_W, part) => {
    const chunkOf: ChunkOf = (x) => rowsOf(x, part);
    const values_C = ofLogits(logitsOf({ ...model, hidden_WD: chunkOf(model.hidden_WD) }, limits.head), chunkOf);
    return dynamicUpdateSlice(values_W, values_C, [part.begin]) as tf.Tensor1D;
  });
}

type Gradients = { value: tf.Scalar; dHidden_WD: tf.Tensor2D; dEmbedding_VD: tf.Tensor2D };

/** Where the head's gradient is not asked for, XLA takes its part out of the loop. A quantised head has none. */
function lossAndGradients(
  student: LazyLogits,
  weight_W: tf.Tensor1D,
  lossOf: TokenFunction,
  limits: Limits,
): Gradients {
  const { hidden_WD, embedding_VD } = student;
  const [[W, D], V] = [hidden_WD.shape, embedding_VD.shape[0]];
  // tf.zeros would make an array in host memory first.
  const zeros = (rows: number) => tf.fill([rows, D], 0) as tf.Tensor2D;
  const learns = !isQuantised(embedding_VD);
  const none: Gradients = { value: tf.scalar(0), dHidden_WD: zeros(W), dEmbedding_VD: zeros(learns ? V : 0) };
  return forEachPart(W, chunksOf(student, limits), none, (sum, chunk) => {
    const chunkOf: ChunkOf = (x) => rowsOf(x, chunk);
    const of = { ...student, hidden_WD: chunkOf(hidden_WD) };
    const weight_C = chunkOf(weight_W).mul<tf.Tensor1D>(chunk.isNew);
    const { value, grad: dRaw_CV } = tf.valueAndGrad((raw_CV: tf.Tensor2D) =>
      weightedSum(lossOf(softCap(raw_CV, student.softCap), chunkOf), weight_C),
    )(rawLogits(of, limits.head));
    return {
      value: sum.value.add(value),
      dHidden_WD: addRows(sum.dHidden_WD, hiddenGradient(dRaw_CV, of, limits.head), chunk),
      dEmbedding_VD: learns ? addHeadGradient(sum.dEmbedding_VD, dRaw_CV, of, limits.head) : sum.dEmbedding_VD,
    };
  });
}

/** Sum of weight * value over what has a weight. */
function weightedSum(values_W: tf.Tensor1D, weight_W: tf.Tensor1D): tf.Scalar {
  const seen_W = tf.where(tf.notEqual(weight_W, 0), values_W, tf.zerosLike(values_W));
  return tf.sum(seen_W.mul(weight_W));
}

/** How many chunks the logits are made in. */
const chunksOf = ({ hidden_WD, embedding_VD }: LazyLogits, limits: Limits): number =>
  Math.min(hidden_WD.shape[0], Math.ceil((hidden_WD.shape[0] * embedding_VD.shape[0]) / limits.logits));
