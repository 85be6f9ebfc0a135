/**
 * A teacher in this process.
 * Shape suffixes: M tokens of all requests, D model, C positions of one call of the head, V vocabulary, k the likeliest tokens.
 */
import { device, gatherLast, gatherRows, jit, tf, topK } from "tfjs-jit";
import type { Block } from "../model/attention.js";
import { MAX_LOGITS } from "../model/compute.js";
import type { ModelConfig } from "../model/config.js";
import { hiddenStates, logits } from "../model/forward.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { listTensors } from "../model/scoring.js";
import { linear, listRows } from "../model/token-list.js";
import type { Batch } from "./batching.js";
import type { TokenScores } from "./teacher.js";

/**
 * The scores of each request of a batch, padded on the right to [rows, length].
 *
 * Two compiled programs: the layers, for each [rows, length] and whatever k, and the head, which is called with C
 * positions at a time. [tokens, vocabulary] never exists as a whole: `logitsPerCall` is the size of its part that does.
 * Positions that nobody asked for cost no head.
 */
export function scoreBatch(
  parameters: Parameters,
  config: ModelConfig,
  batch: Batch,
  logitsPerCall: number = MAX_LOGITS[device],
): TokenScores[] {
  const { requests, k, rows, length } = batch;
  const V = config.vocabSize;
  const C = Math.max(1, Math.min(rows * length, Math.floor(logitsPerCall / V)));
  // The sequences lie one after the other. A hidden state predicts the next token.
  let begin = 0;
  const asked = requests.flatMap(({ ids, from }) => {
    begin += ids.length;
    return ids.slice(from).map((id, i) => ({ token: begin - ids.length + from + i - 1, id }));
  });
  const scores = emptyScores(asked.length, k);
  tf.tidy(() => {
    const filled = Array.from({ length: rows }, (_, row) => ({ ...linear(requests[row]?.ids ?? []), wanted: [] }));
    const { block } = listTensors(
      listRows(filled, {
        slots: length,
        queries: 0,
        sharedPrefix: 0,
        size: rows * length,
        wantedSize: 0,
        inOrder: true,
      }),
    );
    const hidden_MD = layers(parameters, config, block);
    for (let first = 0; first < asked.length; first += C) {
      const part = asked.slice(first, first + C);
      const column = (values: number[]) => {
        const column_C = new Int32Array(C);
        column_C.set(values);
        return tf.tensor1d(column_C);
      };
      tf.tidy(() => {
        const hidden_CD = gatherRows<tf.Rank.R2>(hidden_MD, column(part.map(({ token }) => token)));
        const ids_C = column(part.map(({ id }) => id)) as tf.Tensor1D;
        const told = headScores(parameters, config, hidden_CD, ids_C, k);
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

  let first = 0;
  return requests.map(({ ids, from }) => {
    const end = first + ids.length - from;
    const one = {
      k,
      ids: scores.ids.slice(first * k, end * k),
      logprobs: scores.logprobs.slice(first * k, end * k),
      actual: scores.actual.slice(first, end),
      tail: scores.tail.slice(first, end),
    };
    first = end;
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

const layers = jit(
  (parameters: Parameters, config: ModelConfig, block: Block): tf.Tensor2D =>
    hiddenStates(readParameters(parameters), config, block, null),
  { name: "layers" },
);

type HeadScores = {
  readonly actual_C: tf.Tensor;
  /** null for k = 0. */
  readonly top: { readonly values: tf.Tensor; readonly indices: tf.Tensor } | null;
  /** null where it needs no computing: for k = 0 and k = V. */
  readonly tail_C: tf.Tensor | null;
};

const headScores = jit(function headScores(
  parameters: Parameters,
  config: ModelConfig,
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
