/**
 * Batched sampling with a KV cache: prompt, loop and choice of tokens are one compiled call.
 * Shape suffixes: B prompts of P slots, G completions a prompt, C = B * G completions, N new tokens, V vocabulary. The
 * completions of a prompt are one row that shares the prompt's keys and values: its S = P + N * G cache slots hold the
 * prompt, then the first token of every completion, then the second, and so on.
 */
import { dynamicUpdateSlice, jit, randomUniform, tf, topK, whileLoop } from "tfjs-jit";
import type { Keys } from "../model/attention.js";
import { untilStop } from "../model/batch.js";
import type { Gemma2Config } from "../model/config.js";
import { type Cache, extendCache, forward, logits } from "../model/gemma2.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { type ListTensors, listTensors } from "../model/scoring.js";
import type { TokenList } from "../model/token-list.js";

export type SamplingOptions = {
  /** G: completions of each prompt. */
  readonly samples: number;
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

/** The completions of the first prompt, then those of the second, ... */
export function sampleCompletions(
  parameters: Parameters,
  config: Gemma2Config,
  prompts: TokenList,
  options: SamplingOptions,
): Completion[] {
  const { samples: G, maxNewTokens: N, temperature, seed, stopIds, ...choice } = options;
  const { ids, logprobs } = tf.tidy(() => {
    const sampled = sampleTokens(parameters, config, listTensors(prompts), tf.scalar(seed, "int32"), {
      ...choice,
      G,
      N,
      stopIds,
      temperature: temperature === 0 ? 0 : tf.scalar(temperature),
    });
    return { ids: sampled.ids_CN.dataSync(), logprobs: sampled.logprobs_CN.dataSync() };
  });
  return Array.from({ length: prompts.layout.rows * G }, (_, c) => {
    const completion = untilStop([...ids.subarray(c * N, (c + 1) * N)], stopIds);
    return { ids: completion, logprobs: [...logprobs.subarray(c * N, c * N + completion.length)] };
  });
}

/** How the compiled call samples; a temperature is a tensor, so that a schedule of it needs one program. */
type Choice = {
  readonly G: number;
  readonly N: number;
  readonly temperature: 0 | tf.Tensor;
  readonly topK: number;
  readonly topP: number;
  readonly stopIds: readonly number[];
};

/** Where the loop is: i tokens of each completion are chosen, the last of them id_C. */
type SamplingState = {
  readonly i: tf.Tensor;
  readonly id_C: tf.Tensor;
  readonly isDone_C: tf.Tensor;
  readonly cache: Cache;
  readonly ids_CN: tf.Tensor;
  readonly logprobs_CN: tf.Tensor;
};

const sampleTokens = jit(function sample(
  parameters: Parameters,
  config: Gemma2Config,
  { block: prompts, wanted }: ListTensors,
  seed: tf.Tensor,
  choice: Choice,
): { ids_CN: tf.Tensor; logprobs_CN: tf.Tensor } {
  const weights = readParameters(parameters);
  const { G, N } = choice;
  const [B, P] = prompts.layout.token_BT.shape;
  const C = B * G;
  const one = tf.scalar(1, "int32");
  const column = (x_C: tf.Tensor) => x_C.reshape([C, 1]);

  const prefill = forward(weights, config, prompts, null, wanted);
  const logits_BV = logits(weights, config, prefill.hidden_MD);
  const logits_CV = logits_BV.reshape([B, 1, -1]).tile([1, G, 1]).reshape([C, -1]);
  const first = chooseTokens(logits_CV, seed, tf.scalar(0, "int32"), choice);

  const isPrompt_BP = prompts.layout.token_BT.greaterEqual(tf.scalar(0, "int32"));
  const length_B1 = isPrompt_BP.cast("int32").sum(1, true);
  const length_C = length_B1.tile([1, G]).reshape([C]);
  const segments_C = tf.range(1, G + 1, 1, "int32").tile<tf.Tensor1D>([B]);
  const layout = {
    token_BT: tf.range(0, C, 1, "int32").reshape([B, G]) as tf.Tensor2D,
    slot_M: tf.range(0, C, 1, "int32"),
  };
  const keys = slotKeys(isPrompt_BP, length_B1, choice);

  const end = whileLoop<SamplingState>(
    ({ i, isDone_C }) => i.less(tf.scalar(N, "int32")).logicalAnd(isDone_C.all().logicalNot()),
    ({ i, id_C, isDone_C, cache, ids_CN, logprobs_CN }) => {
      // Tokens i - 1, which were chosen last, have the rotary position length + i - 1.
      const before = i.sub(one);
      const block = {
        ids_M: id_C as tf.Tensor1D,
        positions_M: length_C.add<tf.Tensor1D>(before),
        segments_M: segments_C,
        layout,
      };
      const start = before.mul(tf.scalar(G, "int32")).add<tf.Scalar>(tf.scalar(P, "int32"));
      const next = forward(weights, config, block, { cache, keys, start });
      const chosen = chooseTokens(logits(weights, config, next.hidden_MD), seed, i, choice);
      return {
        i: i.add(one),
        id_C: chosen.id_C,
        isDone_C: isDone_C.logicalOr(isStop(chosen.id_C, choice.stopIds)),
        cache: next.cache,
        ids_CN: dynamicUpdateSlice(ids_CN, column(chosen.id_C), [0, i]),
        logprobs_CN: dynamicUpdateSlice(logprobs_CN, column(chosen.logprob_C), [0, i]),
      };
    },
    {
      i: one,
      id_C: first.id_C,
      isDone_C: isStop(first.id_C, choice.stopIds),
      cache: extendCache(prefill.cache, N * G),
      ids_CN: dynamicUpdateSlice(tf.fill([C, N], 0, "int32"), column(first.id_C), [0, 0]),
      logprobs_CN: dynamicUpdateSlice(tf.fill([C, N], 0), column(first.logprob_C), [0, 0]),
    },
  );
  return { ids_CN: end.ids_CN, logprobs_CN: end.logprobs_CN };
});

/** What the cache's slots hold, from the beginning: those that are not written yet have positions to come, padding has segment -1. */
function slotKeys(isPrompt_BP: tf.Tensor, length_B1: tf.Tensor, { G, N }: Choice): Keys {
  const [B, P] = isPrompt_BP.shape as [number, number];
  const new_1S = tf.range(0, N * G, 1, "int32").reshape([1, N * G]);
  const positions_BP = tf.range(0, P, 1, "int32").reshape([1, P]).tile([B, 1]);
  const segments_1S = tf
    .range(1, G + 1, 1, "int32")
    .tile([N])
    .reshape([1, N * G]);
  const one = tf.scalar(1, "int32");
  return {
    positions_BS: tf.concat2d(
      [positions_BP as tf.Tensor2D, length_B1.add(new_1S.floorDiv(tf.scalar(G, "int32"))) as tf.Tensor2D],
      1,
    ),
    segments_BS: tf.concat2d(
      [isPrompt_BP.cast("int32").sub(one) as tf.Tensor2D, segments_1S.tile([B, 1]) as tf.Tensor2D],
      1,
    ),
  };
}

/** A token per row from softmax(logits / temperature), by the Gumbel-max trick, and its ln p at temperature 1. */
function chooseTokens(
  logits_CV: tf.Tensor,
  seed: tf.Tensor,
  counter: tf.Tensor,
  choice: Choice,
): { id_C: tf.Tensor; logprob_C: tf.Tensor } {
  const { temperature } = choice;
  const scores_CV =
    temperature === 0
      ? logits_CV
      : keepLikely(logits_CV.div(temperature), choice).add(gumbel(randomUniform(seed, counter, logits_CV.shape)));
  const id_C = likeliest(scores_CV);
  const chosen_CV = tf.oneHot(id_C as tf.Tensor1D, logits_CV.shape[1]!).cast("float32");
  return { id_C, logprob_C: tf.logSoftmax(logits_CV).mul(chosen_CV).sum(1) };
}

/** The column of each row's largest value, the first of equals: tf.argMax as two reductions that XLA makes fast. */
function likeliest(scores_CV: tf.Tensor): tf.Tensor {
  const [C, V] = scores_CV.shape as [number, number];
  const isLargest_CV = scores_CV.greaterEqual(scores_CV.max(1, true));
  return tf
    .where(isLargest_CV, tf.range(0, V, 1, "int32").reshape([1, V]).tile([C, 1]), tf.fill([C, V], V, "int32"))
    .min(1);
}

/** Standard Gumbel noise: the largest of logits + noise is distributed as softmax(logits). */
const gumbel = (uniform: tf.Tensor): tf.Tensor => uniform.log().neg().log().neg();

/** The logits with those at -infinity that top-k, then top-p, rule out. Equal logits stay or go together. */
function keepLikely(logits_CV: tf.Tensor, { topK: k, topP: p }: Choice): tf.Tensor {
  const [C, V] = logits_CV.shape as [number, number];
  const drop = (x_CV: tf.Tensor, least_C1: tf.Tensor) =>
    tf.where(x_CV.less(least_C1), tf.fill([C, V], -Infinity), x_CV);
  let kept_CV = logits_CV;
  if (k > 0 && k < V) kept_CV = drop(kept_CV, topK(kept_CV, k).values.slice([0, k - 1], [C, 1]));
  if (p === 1) return kept_CV;
  const sorted_CV = topK(kept_CV, V).values;
  const massBefore_CV = tf.cumsum(tf.softmax(sorted_CV), 1, true);
  const least_C1 = tf.where(massBefore_CV.less(p), sorted_CV, tf.fill([C, V], Infinity)).min(1, true);
  return drop(kept_CV, least_C1);
}

const isStop = (id_C: tf.Tensor, stopIds: readonly number[]): tf.Tensor =>
  stopIds.reduce<tf.Tensor>(
    (any_C, id) => any_C.logicalOr(id_C.equal(tf.scalar(id, "int32"))),
    tf.fill([id_C.shape[0]!], 0, "bool"),
  );
