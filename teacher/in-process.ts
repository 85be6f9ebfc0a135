/**
 * A teacher in this process.
 * Shape suffixes: B rows, T padded length, D model, C positions of one call of the head, V vocabulary, k the likeliest tokens.
 */
import { gatherLast, gatherRows, jit, tf, topK } from "tfjs-jit";
import type { Gemma2Config } from "../model/config.js";
import { forward, logits, positions } from "../model/gemma2.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import type { Batch } from "./batching.js";
import type { TokenScores } from "./teacher.js";

/** 128 MB. */
const LOGITS_PER_CALL = 2 ** 25;

/**
 * The scores of each request of a batch, padded on the right to [rows, length].
 *
 * Two compiled programs: the layers, for each [rows, length] and whatever k, and the head, which is called with C
 * positions at a time. [tokens, vocabulary] never exists as a whole: `logitsPerCall` is the size of its part that does.
 * Positions that nobody asked for cost no head.
 */
export function scoreBatch(
  parameters: Parameters,
  config: Gemma2Config,
  batch: Batch,
  logitsPerCall = LOGITS_PER_CALL,
): TokenScores[] {
  const { requests, k, rows, length } = batch;
  const V = config.vocabSize;
  const C = Math.max(1, Math.min(rows * length, Math.floor(logitsPerCall / V)));
  // The hidden state at position t predicts token t + 1.
  const asked = requests.flatMap(({ ids, from }, row) =>
    ids.slice(from).map((id, i) => ({ slot: row * length + from + i - 1, id })),
  );
  const scores = emptyScores(asked.length, k);
  tf.tidy(() => {
    const hidden_ND = hiddenStates(parameters, config, ...padded(batch)).reshape([rows * length, config.hiddenSize]);
    for (let first = 0; first < asked.length; first += C) {
      const part = asked.slice(first, first + C);
      const column = (values: number[]) => {
        const column_C = new Int32Array(C);
        column_C.set(values);
        return tf.tensor1d(column_C);
      };
      tf.tidy(() => {
        const hidden_CD = gatherRows(hidden_ND, column(part.map(({ slot }) => slot)));
        const ids_C = column(part.map(({ id }) => id)) as tf.Tensor1D;
        const told = headScores(parameters, config, hidden_CD as tf.Tensor2D, ids_C, k);
        const copy = (to: Int32Array | Float32Array, from: tf.Tensor, width: number) =>
          to.set(from.dataSync().subarray(0, part.length * width), first * width);
        copy(scores.actual, told.actual_C, 1);
        if (told.tail_C) copy(scores.tail, told.tail_C, 1);
        if (told.top) copy(scores.ids, told.top.indices, k);
        if (told.top) copy(scores.logprobs, told.top.values, k);
      });
    }
  });
  if (k === V) scores.tail.fill(-Infinity);

  let begin = 0;
  return requests.map(({ ids, from }) => {
    const end = begin + ids.length - from;
    const one = {
      k,
      ids: scores.ids.slice(begin * k, end * k),
      logprobs: scores.logprobs.slice(begin * k, end * k),
      actual: scores.actual.slice(begin, end),
      tail: scores.tail.slice(begin, end),
    };
    begin = end;
    return one;
  });
}

/** A tail of 0 is right for k = 0: all of the mass is outside. */
const emptyScores = (n: number, k: number): TokenScores => ({
  k,
  ids: new Int32Array(n * k),
  logprobs: new Float32Array(n * k),
  actual: new Float32Array(n),
  tail: new Float32Array(n),
});

/** Ids and attention, [rows, length]. */
function padded({ requests, rows, length }: Batch): [tf.Tensor2D, tf.Tensor2D] {
  const ids = new Int32Array(rows * length);
  const attention = new Int32Array(rows * length);
  requests.forEach((request, row) => {
    ids.set(request.ids, row * length);
    attention.fill(1, row * length, row * length + request.ids.length);
  });
  return [tf.tensor2d(ids, [rows, length]), tf.tensor2d(attention, [rows, length])];
}

const hiddenStates = jit(function hiddenStates(
  parameters: Parameters,
  config: Gemma2Config,
  ids_BT: tf.Tensor2D,
  attention_BT: tf.Tensor2D,
): tf.Tensor3D {
  const block = { ids_BT, positions_BT: positions(attention_BT), start: 0, attention_BS: attention_BT };
  return forward(readParameters(parameters), config, block, null).hidden_BTD;
});

type HeadScores = {
  readonly actual_C: tf.Tensor;
  /** null for k = 0. */
  readonly top: { readonly values: tf.Tensor; readonly indices: tf.Tensor } | null;
  /** null where it needs no computing: for k = 0 and k = V. */
  readonly tail_C: tf.Tensor | null;
};

const headScores = jit(function headScores(
  parameters: Parameters,
  config: Gemma2Config,
  hidden_CD: tf.Tensor2D,
  ids_C: tf.Tensor1D,
  k: number,
): HeadScores {
  const logits_CV = logits(readParameters(parameters), config, hidden_CD);
  const [C, V] = logits_CV.shape as [number, number];
  const logprobs_CV = tf.logSoftmax(logits_CV);
  const actual_C = gatherLast(logprobs_CV, ids_C.reshape([C, 1])).reshape([C]);
  if (k === 0) return { actual_C, top: null, tail_C: null };
  const top = topK(logprobs_CV, k);
  return { actual_C, top, tail_C: k === V ? null : logMassOutside(logprobs_CV, top.values) };
});

/**
 * ln of the mass of all tokens but the k likeliest. Summing them, instead of subtracting the others from 1, keeps a
 * tail of 1e-20 as exact as one of 0.1. Of the tokens that are as likely as the last of the k, some may be among the k
 * and some not: they are counted.
 */
function logMassOutside(logprobs_CV: tf.Tensor, top_Ck: tf.Tensor): tf.Tensor {
  const [C, k] = top_Ck.shape as [number, number];
  const least_C1 = top_Ck.slice([0, k - 1], [C, 1]);
  const count = (isSo: tf.Tensor) => isSo.toFloat().sum(1, true);
  const ties_C1 = count(logprobs_CV.equal(least_C1)).sub(count(top_Ck.equal(least_C1)));
  const rest_CV = tf.where(logprobs_CV.less(least_C1), logprobs_CV, tf.fill(logprobs_CV.shape, -Infinity));
  const max_C1 = tf.where(ties_C1.greater(0), least_C1, rest_CV.max(1, true));
  const mass_C1 = rest_CV
    .sub(max_C1)
    .exp()
    .sum(1, true)
    .add(ties_C1.mul(least_C1.sub(max_C1).exp()));
  return mass_C1.log().add(max_C1).reshape([C]);
}
