/**
 * The compiled call of sample.ts, in stages (sampling-stages.ts).
 *
 * Shape suffixes: B prompts, G completions a prompt, C = B * G completions of N new tokens, V vocabulary, X random
 * numbers of a token. A stage goes on with M of the completions.
 */
import { dynamicUpdateSlice, gatherRows, jit, randomUniform, tf, whileLoop } from "tfjs-jit";
import type { ModelConfig } from "../model/config.js";
import { type Cache, emptyCache, forward, logits } from "../model/forward.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import type { ListTensors } from "../model/scoring.js";
import { type Choice, chooseTokens, numbersPerToken } from "./choose.js";
import { amongAll, type Kept, keepAll, keepUnfinished, promptOf, promptsSeen, take } from "./kept.js";
import { extendCache, lengthsOf, ownSlots, promptsOf, slotsFor, takeRows } from "./sampling-cache.js";
import type { Stage } from "./sampling-stages.js";
import { ENDED, START } from "./stop-texts.js";

/** How the compiled call samples. */
type Options = Choice & {
  readonly samples: number;
  readonly maxNewTokens: number;
  readonly stages: readonly Stage[];
  readonly stopIds: readonly number[];
  /** Texts that end a completion: see stop-texts.ts. */
  readonly stopTexts: { readonly row_V: tf.Tensor1D; readonly next_K: tf.Tensor1D } | null;
};

/** Where the loop is: i tokens of each completion are chosen, the last of them id_M. */
type State = {
  readonly i: tf.Scalar;
  readonly id_M: tf.Tensor1D;
  /** START, ENDED, or how much of a stop text is there. */
  readonly match_M: tf.Tensor1D;
  /** Of the completions' tokens but the last. */
  readonly cache: Cache;
  readonly ids_NC: tf.Tensor2D;
  readonly logprobs_NC: tf.Tensor2D;
};

const int = (value: number) => tf.scalar(value, "int32") as tf.Scalar;

export const sampleTokens = jit(function sample(
  parameters: Parameters,
  config: ModelConfig,
  { block, wanted }: ListTensors,
  seed: tf.Tensor,
  options: Options,
): { ids_CN: tf.Tensor; logprobs_CN: tf.Tensor } {
  const weights = readParameters(parameters);
  const { samples: G, maxNewTokens: N, stages } = options;
  const B = block.layout.token_BT.shape[0];
  const [C, V] = [B * G, config.vocabSize];
  const length_B = lengthsOf(block);

  /** Chooses token i of the kept completions. */
  const choose = (logits_MV: tf.Tensor2D, kept: Kept, state: Omit<State, "id_M">): State => {
    const { i, match_M, cache, ids_NC, logprobs_NC } = state;
    // Of all completions, so that one that is kept draws the same numbers wherever it stands.
    const uniform_CX = randomUniform(seed, i, [C, numbersPerToken(V)]);
    const { id_M, logprob_M } = chooseTokens(logits_MV, gatherRows(uniform_CX, kept.completion_M), options);
    const write = (x_NC: tf.Tensor2D, x_M: tf.Tensor1D): tf.Tensor2D =>
      dynamicUpdateSlice(x_NC, amongAll(x_M, kept).reshape([1, C]), [i, 0]) as tf.Tensor2D;
    return {
      i: i.add(int(1)),
      id_M,
      match_M: matchAfter(match_M, id_M, options),
      cache,
      ids_NC: write(ids_NC, id_M),
      logprobs_NC: write(logprobs_NC, logprob_M),
    };
  };

  const prefill = forward(weights, config, block, null, wanted);
  const logits_BV = logits(weights, config, prefill.hidden_MD);
  let kept = keepAll(promptsOf(prefill.cache, block, config), B, G);
  let state = choose(gatherRows(logits_BV, promptOf(kept)), kept, {
    i: int(0),
    match_M: tf.fill([C], START, "int32"),
    cache: emptyCache(config, C, slotsFor(stages[0]!.slots, config)),
    ids_NC: tf.fill([N, C], 0, "int32"),
    logprobs_NC: tf.fill([N, C], 0),
  });
  stages.forEach(({ completions, slots }, index) => {
    const sizes = slotsFor(slots, config);
    if (index > 0) ({ kept, state } = goOn(kept, state, completions, (cache) => extendCache(cache, sizes, config)));
    const fewer = stages.slice(index + 1).find((next) => next.completions < completions)?.completions ?? 0;
    const [prompts, length_M, layout] = [promptsSeen(kept), take(length_B, promptOf(kept)), column(completions)];
    state = whileLoop<State>(
      ({ i, match_M }) => i.lessEqual(int(Math.min(slots, N - 1))).logicalAnd(isMore(match_M, fewer)),
      ({ id_M, cache, ...rest }) => {
        const last = rest.i.sub<tf.Scalar>(int(1));
        const positions_M = length_M.add<tf.Tensor1D>(last);
        const next = forward(
          weights,
          config,
          { ids_M: id_M, positions_M, segments_M: tf.zerosLike(id_M), layout },
          { own: { cache, slots: ownSlots(length_M, last, sizes) }, prompts },
        );
        return choose(logits(weights, config, next.hidden_MD), kept, { ...rest, cache: next.cache });
      },
      state,
    );
  });
  return { ids_CN: state.ids_NC.transpose(), logprobs_CN: state.logprobs_NC.transpose() };
});

/** A stage that keeps `count` of the completions. */
function goOn(
  before: Kept,
  state: State,
  count: number,
  extend: (cache: Cache) => Cache,
): { kept: Kept; state: State } {
  const { id_M, match_M, cache } = state;
  if (count === id_M.shape[0]) return { kept: before, state: { ...state, cache: extend(cache) } };
  const { kept, order_M } = keepUnfinished(before, hasEnded(match_M), count);
  const [id, match] = [take(id_M, order_M), take(match_M, order_M)];
  return { kept, state: { ...state, id_M: id, match_M: match, cache: extend(takeRows(cache, order_M)) } };
}

/** A list of which each token is a row. */
function column(M: number) {
  const slot_M = tf.range(0, M, 1, "int32");
  return { token_BT: slot_M.reshape([M, 1]) as tf.Tensor2D, slot_M };
}

const hasEnded = (match_M: tf.Tensor1D): tf.Tensor1D => match_M.equal(int(ENDED));

const isMore = (match_M: tf.Tensor1D, than: number): tf.Tensor =>
  hasEnded(match_M).logicalNot().cast("int32").sum().greater(int(than));

function matchAfter(match_M: tf.Tensor1D, id_M: tf.Tensor1D, { stopIds, stopTexts }: Options): tf.Tensor1D {
  const ended_M = tf.fill([id_M.shape[0]], ENDED, "int32") as tf.Tensor1D;
  const read_M =
    stopTexts === null ? match_M : take(stopTexts.next_K, take(stopTexts.row_V, id_M).add<tf.Tensor1D>(match_M));
  return tf.where(isStop(id_M, stopIds), ended_M, read_M);
}

/** Which of the ids are stop tokens. */
export const isStop = (id_M: tf.Tensor1D, stopIds: readonly number[]): tf.Tensor1D =>
  stopIds.reduce<tf.Tensor1D>(
    (any_M, id) => any_M.logicalOr(id_M.equal(int(id))),
    tf.fill([id_M.shape[0]], 0, "bool") as tf.Tensor1D,
  );
