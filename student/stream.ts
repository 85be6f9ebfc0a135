/**
 * One sequence of tokens that is sampled a few tokens at a time, so that they can be shown as they come. Its keys and values
 * stay on the device: what a later prompt begins with, such as a conversation so far, is not computed again.
 *
 * Shape suffixes: one row (B = 1) of S slots, in which token n of the sequence has slot n; T tokens of a prompt, V vocabulary,
 * X random numbers of a token.
 */
import { dynamicUpdateSlice, jit, randomUniform, tf, whileLoop } from "tfjs-jit";
import { sharedPrefix } from "../model/batch.js";
import type { ModelConfig } from "../model/config.js";
import { everyType } from "../model/config-keys.js";
import { type Cache, emptyCache, forward, logits } from "../model/forward.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { type Choice, chooseTokens, numbersPerToken } from "./choose.js";
import type { SamplingOptions } from "./sample.js";
import { extendCache } from "./sampling-cache.js";
import { isStop } from "./sampling-loop.js";

export type StreamOptions = Omit<SamplingOptions, "samples" | "logprobTemperature">;

export type Stream = {
  /**
   * Completes a prompt of at least one token: gives the next tokens, some at a time, the stop token included. The tokens
   * follow from prompt, options and seed alone, however the calls are timed.
   */
  complete(prompt: readonly number[], options: StreamOptions): Generator<number[], void>;
  /** Frees what is kept on the device. */
  dispose(): void;
};

/** Most tokens of a call. */
const MOST = 16;
/** How long a call may take before its tokens are seen. */
const CALL_MS = 100;
/** Tokens of a prompt that are read at once: each is a program. */
const BLOCKS = [32, 256];
/** Slots to begin with. They double where a sequence needs more: each number of slots is a program. */
const FEWEST_SLOTS = 512;

export function openStream(parameters: Parameters, config: ModelConfig): Stream {
  let cache: Cache | null = null;
  let slots = 0;
  /** The tokens whose keys and values the cache holds. */
  let known: number[] = [];

  /** Calls what gives a new cache, and frees the old one. */
  const renew = <R extends { cache: Cache }>(make: (cache: Cache) => R): R => {
    const before = cache!;
    const made = tf.tidy(() => make(before) as R & tf.TensorContainer) as R;
    cache = made.cache;
    tf.dispose(before as unknown as tf.TensorContainer);
    return made;
  };

  const makeRoom = (tokens: number): void => {
    if (tokens <= slots) return;
    slots = Math.max(FEWEST_SLOTS, 2 ** Math.ceil(Math.log2(tokens)));
    if (cache === null) cache = tf.tidy(() => emptyCache(config, 1, everyType(slots)) as Cache & tf.TensorContainer);
    else renew((before) => ({ cache: extendCache(before, everyType(slots), config) }));
  };

  const readPrompt = (prompt: readonly number[]): void => {
    known = known.slice(0, sharedPrefix([known, prompt.slice(0, -1)]));
    while (known.length < prompt.length - 1) {
      const rest = prompt.slice(known.length, -1);
      const T = BLOCKS.find((size) => rest.length <= size) ?? BLOCKS.at(-1)!;
      const ids = Int32Array.from({ length: T }, (_, t) => rest[t] ?? 0);
      renew((before) => ({
        cache: readTokens(parameters, config, before, tf.tensor1d(ids), int(known.length)),
      }));
      known = [...known, ...rest.slice(0, T)];
    }
  };

  /** The tokens after `last`, which follows what is known: `most` of them, or up to a stop token. */
  const sampleNext = (last: number, most: number, options: Omit<StreamOptions, "maxNewTokens">): number[] => {
    const { temperature, seed, topK, topP, stopIds } = options;
    const { ids_N, count } = renew((before) =>
      nextTokens(
        parameters,
        config,
        before,
        { last: int(last), position: int(known.length), most: int(most), seed: int(seed) },
        { topK, topP, stopIds, temperature: temperature === 0 ? 0 : tf.scalar(temperature), logprobTemperature: 1 },
      ),
    );
    const ids = [...ids_N.dataSync().subarray(0, count.dataSync()[0]!)];
    tf.dispose([ids_N, count]);
    return ids;
  };

  return {
    *complete(prompt, { maxNewTokens, ...options }) {
      makeRoom(prompt.length + Math.max(maxNewTokens, BLOCKS.at(-1)!));
      readPrompt(prompt);
      let last = prompt.at(-1)!;
      let size = 1;
      for (let made = 0; made < maxNewTokens; ) {
        const startMs = performance.now();
        const ids = sampleNext(last, Math.min(size, maxNewTokens - made), options);
        // All but the last are in the cache: that one is written by the next call.
        known.push(last, ...ids.slice(0, -1));
        last = ids.at(-1)!;
        made += ids.length;
        yield ids;
        if (options.stopIds.includes(last)) return;
        const msPerToken = (performance.now() - startMs) / ids.length;
        size = Math.max(1, Math.min(MOST, Math.floor(CALL_MS / msPerToken)));
      }
    },
    dispose: () => {
      tf.dispose(cache as unknown as tf.TensorContainer);
      cache = null;
      slots = 0;
      known = [];
    },
  };
}

const int = (value: number) => tf.scalar(value, "int32") as tf.Scalar;
const range = (n: number): tf.Tensor1D => tf.range(0, n, 1, "int32");

/** Writes tokens into the cache from slot `start` on. What fills up a block is overwritten before anything sees it. */
const readTokens = jit(
  (parameters: Parameters, config: ModelConfig, cache: Cache, ids_T: tf.Tensor1D, start: tf.Scalar): Cache =>
    extend(parameters, config, cache, ids_T, start).cache,
  { name: "read" },
);

/** Hidden states of tokens from slot `start` on, and the cache with them. */
function extend(parameters: Parameters, config: ModelConfig, cache: Cache, ids_T: tf.Tensor1D, start: tf.Scalar) {
  const [T, S] = [ids_T.shape[0], cache[0]!.v_BKSH.shape[2]];
  const block = {
    ids_M: ids_T,
    positions_M: start.add<tf.Tensor1D>(range(T)),
    segments_M: tf.zerosLike(ids_T),
    layout: { token_BT: range(T).reshape<tf.Tensor2D>([1, T]), slot_M: range(T) },
  };
  // Slots that hold no token yet have later positions than any token, which hides them.
  const keys = {
    positions_BS: range(S).reshape<tf.Tensor2D>([1, S]),
    segments_BS: tf.zeros<tf.Rank.R2>([1, S], "int32"),
  };
  const own = { cache, slots: everyType({ keys, start }) };
  return forward(readParameters(parameters), config, block, { own, prompts: null });
}

type From = {
  readonly last: tf.Scalar;
  readonly position: tf.Scalar;
  readonly most: tf.Scalar;
  readonly seed: tf.Scalar;
};

/** Where the loop is: i tokens are chosen, the last of them id_M. */
type State = { readonly i: tf.Scalar; readonly id_M: tf.Tensor1D; readonly ids_N: tf.Tensor1D; readonly cache: Cache };

/** The tokens after `last`, which has slot `position`: at most `most`, of N that there is room for. */
const nextTokens = jit(
  (
    parameters: Parameters,
    config: ModelConfig,
    cache: Cache,
    { last, position, most, seed }: From,
    { stopIds, ...choice }: Choice & { readonly stopIds: readonly number[] },
  ): { ids_N: tf.Tensor1D; count: tf.Scalar; cache: Cache } => {
    const X = numbersPerToken(config.vocabSize);
    const isMore = ({ i, id_M }: State) =>
      i.less(most).logicalAnd(i.equal(int(0)).logicalOr(isStop(id_M, stopIds).logicalNot().all()));
    const state = whileLoop<State>(
      isMore,
      ({ i, id_M, ids_N, cache }) => {
        const slot = position.add<tf.Scalar>(i);
        const next = extend(parameters, config, cache, id_M, slot);
        const logits_MV = logits(readParameters(parameters), config, next.hidden_MD);
        const chosen = chooseTokens(logits_MV, randomUniform(seed, slot, [1, X]) as tf.Tensor2D, choice);
        return {
          i: i.add(int(1)),
          id_M: chosen.id_M,
          ids_N: dynamicUpdateSlice(ids_N, chosen.id_M, [i]) as tf.Tensor1D,
          cache: next.cache,
        };
      },
      { i: int(0), id_M: last.reshape([1]), ids_N: tf.zeros([MOST], "int32"), cache },
    );
    return { ids_N: state.ids_N, count: state.i, cache: state.cache };
  },
  { name: "stream" },
);
