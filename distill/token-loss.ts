/**
 * Losses and log-probabilities from the last hidden states, a chunk of tokens at a time: [tokens, vocabulary] never
 * exists. Each is given as a function of logits (losses.ts), which sees those of a chunk.
 *
 * A loss's gradient is computed together with its value, while a chunk's logits are there: nothing is kept for a
 * backward pass, and nothing is computed twice.
 *
 * Shape suffixes: W tokens, C tokens of a chunk, D model, V vocabulary, B entries of a part of the vocabulary.
 */
import { dynamicSlice, dynamicUpdateSlice, tf, whileLoop } from "tfjs-jit";
import { softCap } from "../model/attention.js";
import { type LazyLogits, logitsOf, rawLogits } from "../model/scoring.js";

/** The chunk's rows of a tensor [W, ...]: [C, ...]. */
export type ChunkOf = <T extends tf.Tensor>(x: T) => T;

/** A value of each token of a chunk, from its logits and the chunk's part of what else there is by token. */
export type TokenFunction = (logits_CV: tf.Tensor2D, chunkOf: ChunkOf) => tf.Tensor1D;

const all: ChunkOf = (x) => x;

/** Elements of the largest temporary tensors, of which a handful live at a time: 128 MB each. */
const MAX_ELEMENTS = 2 ** 25;

/**
 * Sum over tokens of weight * loss. Tokens of weight 0 are not seen, be their loss NaN. The gradient flows to the hidden
 * states and to the head, not through `chunkOf` nor to what else `lossOf` refers to.
 */
export function weightedLoss(
  student: LazyLogits,
  weight_W: tf.Tensor1D,
  lossOf: TokenFunction,
  maxElements = MAX_ELEMENTS,
): tf.Scalar {
  const chunks = chunksOf(student, maxElements);
  if (chunks === 1) return weightedSum(lossOf(logitsOf(student), all), weight_W);
  const loss = tf.customGrad((...args) => {
    const [hidden_WD, embedding_VD, save] = args as unknown[] as [tf.Tensor2D, tf.Tensor2D, tf.GradSaveFunc];
    const of = { ...student, hidden_WD, embedding_VD };
    const { value, dHidden_WD, dEmbedding_VD } = onFreshTape(() =>
      lossAndGradients(of, weight_W, lossOf, chunks, maxElements),
    );
    save([dHidden_WD, dEmbedding_VD]);
    return { value, gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => saved.map((gradient) => gradient.mul(dy)) };
  });
  return loss(student.hidden_WD, student.embedding_VD) as tf.Scalar;
}

/** Mean of a loss over counted tokens, as `tokenMean` of losses.ts; `tokens` is the count of the whole optimiser step. */
export const meanLoss = (
  student: LazyLogits,
  counted_W: tf.Tensor1D,
  tokens: tf.Tensor,
  lossOf: TokenFunction,
): tf.Scalar => weightedLoss(student, counted_W, lossOf).div(tf.maximum(tokens, 1));

/** The value of every token, [W]. It has no gradient. */
export function tokenValues(model: LazyLogits, ofLogits: TokenFunction, maxElements = MAX_ELEMENTS): tf.Tensor1D {
  const chunks = chunksOf(model, maxElements);
  if (chunks === 1) return ofLogits(logitsOf(model), all);
  const W = model.hidden_WD.shape[0];
  return forEachPart(W, chunks, tf.fill([W], 0) as tf.Tensor1D, (values_W, part) => {
    const chunkOf = chunkAt(part);
    const values_C = ofLogits(logitsOf({ ...model, hidden_WD: chunkOf(model.hidden_WD) }), chunkOf);
    return dynamicUpdateSlice(values_W, values_C, [part.begin]) as tf.Tensor1D;
  });
}

type Gradients = { value: tf.Scalar; dHidden_WD: tf.Tensor2D; dEmbedding_VD: tf.Tensor2D };

/** Where the head's gradient is not asked for, XLA takes its part out of the loop. */
function lossAndGradients(
  { hidden_WD, embedding_VD, softCap: cap }: LazyLogits,
  weight_W: tf.Tensor1D,
  lossOf: TokenFunction,
  chunks: number,
  maxElements: number,
): Gradients {
  const [[W, D], V] = [hidden_WD.shape, embedding_VD.shape[0]];
  // tf.zeros would make an array in host memory first.
  const zeros = (rows: number) => tf.fill([rows, D], 0) as tf.Tensor2D;
  const none: Gradients = { value: tf.scalar(0), dHidden_WD: zeros(W), dEmbedding_VD: zeros(V) };
  return forEachPart(W, chunks, none, (sum, chunk) => {
    const chunkOf = chunkAt(chunk);
    const hidden_CD = chunkOf(hidden_WD);
    const weight_C = chunkOf(weight_W).mul<tf.Tensor1D>(chunk.isNew);
    const { value, grad: dRaw_CV } = tf.valueAndGrad((raw_CV: tf.Tensor2D) =>
      weightedSum(lossOf(softCap(raw_CV, cap), chunkOf), weight_C),
    )(rawLogits({ hidden_WD: hidden_CD, embedding_VD }));
    const dEmbedding_VD = forEachPart(V, Math.ceil((V * D) / maxElements), sum.dEmbedding_VD, (dEmbedding_VD, part) => {
      const dRaw_CB = dynamicSlice(dRaw_CV, [0, part.begin], [chunk.size, part.size]).mul<tf.Tensor2D>(part.isNew);
      return addRows(dEmbedding_VD, tf.matMul(dRaw_CB, hidden_CD, true), part.begin);
    });
    return {
      value: sum.value.add(value),
      dHidden_WD: addRows(sum.dHidden_WD, tf.matMul(dRaw_CV, embedding_VD), chunk.begin),
      dEmbedding_VD,
    };
  });
}

/** Sum of weight * value over what has a weight. */
function weightedSum(values_W: tf.Tensor1D, weight_W: tf.Tensor1D): tf.Scalar {
  const seen_W = tf.where(tf.notEqual(weight_W, 0), values_W, tf.zerosLike(values_W));
  return tf.sum(seen_W.mul(weight_W));
}

/** How many chunks the logits are made in. */
const chunksOf = ({ hidden_WD, embedding_VD }: LazyLogits, maxElements: number): number => {
  const [W, V] = [hidden_WD.shape[0], embedding_VD.shape[0]];
  return Math.min(W, Math.ceil((W * V) / maxElements));
};

/** One of the parts of equal size that cover an axis. Where they do not divide it, the last one begins early. */
type Part = {
  readonly begin: tf.Scalar;
  readonly size: number;
  /** [size]: 0 where the part before has been already, else 1. */
  readonly isNew: tf.Tensor1D;
};

function forEachPart<V>(length: number, parts: number, vars: V, body: (vars: V, part: Part) => V): V {
  const size = Math.ceil(length / parts);
  const int = (value: number): tf.Scalar => tf.scalar(value, "int32");
  const first = { end: int(0), vars };
  return whileLoop(
    ({ end }) => end.less(int(length)),
    ({ end, vars }) => {
      const begin: tf.Scalar = tf.minimum(end, int(length - size));
      const isNew = tf.range(0, size, 1, "int32").add(begin).greaterEqual(end).cast("float32") as tf.Tensor1D;
      return { end: end.add<tf.Scalar>(int(size)), vars: body(vars, { begin, size, isNew }) };
    },
    first,
  ).vars;
}

const chunkAt = ({ begin, size }: Part): ChunkOf => {
  return <T extends tf.Tensor>(x: T): T => {
    const [, ...others] = x.shape;
    return dynamicSlice(x, [begin, ...others.map(() => 0)], [size, ...others]) as T;
  };
};

/** x with a block added to its rows from `begin` on. */
const addRows = (x: tf.Tensor2D, block: tf.Tensor2D, begin: tf.Scalar): tf.Tensor2D => {
  const rows = dynamicSlice(x, [begin, 0], block.shape);
  return dynamicUpdateSlice(x, rows.add(block), [begin, 0]) as tf.Tensor2D;
};

/** Runs `fn` as if no gradient was being taken, so that it may take its own: the tape of the outer one records nothing of it. */
function onFreshTape<R>(fn: () => R): R {
  const { state } = tf.engine();
  const { activeTape, gradientDepth, kernelDepth } = state;
  Object.assign(state, { activeTape: null, gradientDepth: 0, kernelDepth: 0 });
  try {
    return fn();
  } finally {
    Object.assign(state, { activeTape, gradientDepth, kernelDepth });
  }
}
