/**
 * Batched sampling with a KV cache: prompt, loop and choice of tokens are one compiled call.
 * Shape suffixes: B rows, P prompt slots, N new tokens, S = P + N cache slots, V vocabulary.
 */
import { dynamicUpdateSlice, jit, randomUniform, tf, topK, whileLoop } from "tfjs-jit";
import { type PromptBatch, untilStop } from "../model/batch.js";
import type { Gemma2Config } from "../model/config.js";
import { type Cache, emptyCache, forward, logits, positions } from "../model/gemma2.js";
import { type Parameters, readParameters } from "../model/parameters.js";

export type SamplingOptions = {
  /** N: the longest completion in tokens, stop token included. */
  readonly maxNewTokens: number;
  /** Divides the logits before the choice; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Choose among the k likeliest tokens; 0 is all. */
  readonly topK: number;
  /** Choose among the likeliest tokens whose mass reaches this much, above 0 and at most 1. */
  readonly topP: number;
  /** Tokens that end a completion. */
  readonly stopIds: readonly number[];
  /** int32. The same seed and batch give the same completions. */
  readonly seed: number;
};

export type Completion = {
  /** Up to and including the first stop token. */
  readonly ids: number[];
  /** ln of each id's probability at temperature 1, before top-k and top-p. */
  readonly logprobs: number[];
};

/** One completion per prompt. */
export function sampleCompletions(
  parameters: Parameters,
  config: Gemma2Config,
  prompts: PromptBatch,
  options: SamplingOptions,
): Completion[] {
  const { maxNewTokens: N, temperature, seed, stopIds, ...choice } = options;
  const { ids, logprobs } = tf.tidy(() => {
    const shape: [number, number] = [prompts.rows, prompts.slots];
    const sampled = sampleTokens(
      parameters,
      config,
      tf.tensor2d(prompts.ids, shape),
      tf.tensor2d(prompts.attention, shape),
      tf.scalar(seed, "int32"),
      { ...choice, N, stopIds, temperature: temperature === 0 ? 0 : tf.scalar(temperature) },
    );
    return { ids: sampled.ids_BN.dataSync(), logprobs: sampled.logprobs_BN.dataSync() };
  });
  return Array.from({ length: prompts.rows }, (_, row) => {
    const completion = untilStop([...ids.subarray(row * N, (row + 1) * N)], stopIds);
    return { ids: completion, logprobs: [...logprobs.subarray(row * N, row * N + completion.length)] };
  });
}

/** How the compiled call samples; a temperature is a tensor, so that a schedule of it needs one program. */
type Choice = {
  readonly N: number;
  readonly temperature: 0 | tf.Tensor;
  readonly topK: number;
  readonly topP: number;
  readonly stopIds: readonly number[];
};

/** Where the loop is: i tokens are chosen, the last of them id_B. */
type SamplingState = {
  readonly i: tf.Tensor;
  readonly id_B: tf.Tensor;
  readonly isDone_B: tf.Tensor;
  readonly cache: Cache;
  readonly ids_BN: tf.Tensor;
  readonly logprobs_BN: tf.Tensor;
};

const sampleTokens = jit(function sample(
  parameters: Parameters,
  config: Gemma2Config,
  ids_BP: tf.Tensor2D,
  attention_BP: tf.Tensor2D,
  seed: tf.Tensor,
  choice: Choice,
): { ids_BN: tf.Tensor; logprobs_BN: tf.Tensor } {
  const weights = readParameters(parameters);
  const [B, P] = ids_BP.shape;
  const { N } = choice;
  // The slots of completions are always open: the causal mask hides those that are not written yet.
  const attention_BS = tf.concat([attention_BP, tf.fill([B, N], 1, "int32")], 1) as tf.Tensor2D;
  const length_B = attention_BP.sum(1);

  const prefill = forward(
    weights,
    config,
    { ids_BT: ids_BP, positions_BT: positions(attention_BP), start: 0, attention_BS },
    emptyCache(config, B, P + N),
  );
  const lastHidden_BD = prefill.hidden_BTD.slice([0, P - 1, 0], [B, 1, -1]).reshape([B, -1]);
  const first = chooseTokens(logits(weights, config, lastHidden_BD), seed, tf.scalar(0, "int32"), choice);
  const column = (x_B: tf.Tensor) => x_B.reshape([B, 1]);

  const end = whileLoop<SamplingState>(
    ({ i, isDone_B }) => i.less(tf.scalar(N, "int32")).logicalAnd(isDone_B.all().logicalNot()),
    ({ i, id_B, isDone_B, cache, ids_BN, logprobs_BN }) => {
      // Token i - 1, which was chosen last, stands in slot P + i - 1 and has the rotary position length + i - 1.
      const before = i.sub(tf.scalar(1, "int32"));
      const block = {
        ids_BT: column(id_B) as tf.Tensor2D,
        positions_BT: column(length_B.add(before)) as tf.Tensor2D,
        start: before.add(tf.scalar(P, "int32")) as tf.Scalar,
        attention_BS,
      };
      const next = forward(weights, config, block, cache);
      const chosen = chooseTokens(logits(weights, config, next.hidden_BTD.reshape([B, -1])), seed, i, choice);
      return {
        i: i.add(tf.scalar(1, "int32")),
        id_B: chosen.id_B,
        isDone_B: isDone_B.logicalOr(isStop(chosen.id_B, choice.stopIds)),
        cache: next.cache!,
        ids_BN: dynamicUpdateSlice(ids_BN, column(chosen.id_B), [0, i]),
        logprobs_BN: dynamicUpdateSlice(logprobs_BN, column(chosen.logprob_B), [0, i]),
      };
    },
    {
      i: tf.scalar(1, "int32"),
      id_B: first.id_B,
      isDone_B: isStop(first.id_B, choice.stopIds),
      cache: prefill.cache!,
      ids_BN: dynamicUpdateSlice(tf.fill([B, N], 0, "int32"), column(first.id_B), [0, 0]),
      logprobs_BN: dynamicUpdateSlice(tf.fill([B, N], 0), column(first.logprob_B), [0, 0]),
    },
  );
  return { ids_BN: end.ids_BN, logprobs_BN: end.logprobs_BN };
});

/** A token per row from softmax(logits / temperature), by the Gumbel-max trick, and its ln p at temperature 1. */
function chooseTokens(
  logits_BV: tf.Tensor,
  seed: tf.Tensor,
  counter: tf.Tensor,
  choice: Choice,
): { id_B: tf.Tensor; logprob_B: tf.Tensor } {
  const { temperature } = choice;
  const scores_BV =
    temperature === 0
      ? logits_BV
      : keepLikely(logits_BV.div(temperature), choice).add(gumbel(randomUniform(seed, counter, logits_BV.shape)));
  const id_B = scores_BV.argMax(1).cast("int32");
  const chosen_BV = tf.oneHot(id_B as tf.Tensor1D, logits_BV.shape[1]!).cast("float32");
  return { id_B, logprob_B: tf.logSoftmax(logits_BV).mul(chosen_BV).sum(1) };
}

/** Standard Gumbel noise: the largest of logits + noise is distributed as softmax(logits). */
const gumbel = (uniform: tf.Tensor): tf.Tensor => uniform.log().neg().log().neg();

/** The logits with those at -infinity that top-k, then top-p, rule out. Equal logits stay or go together. */
function keepLikely(logits_BV: tf.Tensor, { topK: k, topP: p }: Choice): tf.Tensor {
  const [B, V] = logits_BV.shape as [number, number];
  const drop = (x_BV: tf.Tensor, least_B1: tf.Tensor) =>
    tf.where(x_BV.less(least_B1), tf.fill([B, V], -Infinity), x_BV);
  let kept_BV = logits_BV;
  if (k > 0 && k < V) kept_BV = drop(kept_BV, topK(kept_BV, k).values.slice([0, k - 1], [B, 1]));
  if (p === 1) return kept_BV;
  const sorted_BV = topK(kept_BV, V).values;
  const massBefore_BV = tf.cumsum(tf.softmax(sorted_BV), 1, true);
  const least_B1 = tf.where(massBefore_BV.less(p), sorted_BV, tf.fill([B, V], Infinity)).min(1, true);
  return drop(kept_BV, least_B1);
}

const isStop = (id_B: tf.Tensor, stopIds: readonly number[]): tf.Tensor =>
  stopIds.reduce<tf.Tensor>(
    (any_B, id) => any_B.logicalOr(id_B.equal(tf.scalar(id, "int32"))),
    tf.fill([id_B.shape[0]!], 0, "bool"),
  );
