/**
 * Keys and values of prompts and of their completions. A sliding layer keeps what a window can reach: of a prompt its
 * last tokens, of a completion a ring of slots.
 *
 * Shape suffixes: B prompts of P slots, M completions; S slots, K key/value heads, H head size.
 */
import { gatherRows, tf } from "tfjs-jit";
import type { Block } from "../model/attention.js";
import type { ModelConfig } from "../model/config.js";
import type { ByType } from "../model/config-keys.js";
import type { Cache, Slots } from "../model/forward.js";
import type { Keys } from "../model/sight.js";

const int = (value: number) => tf.scalar(value, "int32");
const range = (n: number) => tf.range(0, n, 1, "int32");

/** Prompts, as they were computed once. */
export type Prompts = { readonly cache: Cache; readonly keys: ByType<Keys> };

/** How many tokens of each prompt there are. */
export const lengthsOf = ({ layout: { token_BT } }: Block): tf.Tensor1D =>
  token_BT.greaterEqual(int(0)).cast("int32").sum(1);

/** What the completions of prompts look at. `cache` holds all of the prompts, whose slots are their positions. */
export function promptsOf(cache: Cache, prompts: Block, config: ModelConfig): Prompts {
  const [B, P] = prompts.layout.token_BT.shape;
  const length_B1 = lengthsOf(prompts).reshape([B, 1]);
  const all = keysAt(range(P).reshape([1, P]).tile([B, 1]), length_B1);
  // The first token of a completion sees those less than a window before it.
  const recent = Math.max(1, config.slidingWindow - 1);
  if (recent >= P) return { cache, keys: { full_attention: all, sliding_attention: all } };
  const slot_BS = length_B1.sub<tf.Tensor2D>(int(recent)).add<tf.Tensor2D>(range(recent));
  const pick = (x_BKPH: tf.Tensor4D): tf.Tensor4D => {
    const [, K, , H] = x_BKPH.shape;
    const first_BK1 = tf.range(0, B * K * P, P, "int32").reshape([B, K, 1]);
    return gatherRows(
      x_BKPH.reshape([-1, H]),
      first_BK1.add(tf.maximum(slot_BS, tf.scalar(0, "int32")).reshape([B, 1, recent])),
    );
  };
  return {
    cache: cache.map(({ k_BKHS, v_BKSH }, layer) =>
      config.layerTypes[layer] === "sliding_attention"
        ? { k_BKHS: turn(pick(turn(k_BKHS))), v_BKSH: pick(v_BKSH) }
        : { k_BKHS, v_BKSH },
    ),
    keys: { full_attention: all, sliding_attention: keysAt(slot_BS, length_B1) },
  };
}

const turn = (x: tf.Tensor4D): tf.Tensor4D => x.transpose([0, 1, 3, 2]);

/** Tokens of prompts; positions outside 0..length-1 are padding. */
function keysAt(positions_BS: tf.Tensor2D, length_B1: tf.Tensor): Keys {
  const isToken_BS = positions_BS.greaterEqual(int(0)).logicalAnd(positions_BS.less(length_B1));
  return { positions_BS, segments_BS: isToken_BS.cast("int32").sub(int(1)) };
}

/** How many slots a completion of at most `tokens` tokens needs. */
export const slotsFor = (tokens: number, { slidingWindow }: ModelConfig): ByType<number> => ({
  full_attention: tokens,
  sliding_attention: Math.min(tokens, slidingWindow),
});

/** What completions look at of their own, with token n as the last: slot n mod S holds it. They begin at `length_M`. */
export function ownSlots(length_M: tf.Tensor1D, n: tf.Scalar, sizes: ByType<number>): ByType<Slots> {
  const M = length_M.shape[0];
  const ofSize = (S: number): Slots => {
    const age_S = n.sub(range(S)).mod(int(S));
    // Before the first round not all slots hold a token.
    const token_1S = n.sub(age_S).reshape([1, S]);
    const segments_1S = token_1S.greaterEqual(int(0)).cast("int32").sub(int(1));
    return {
      keys: { positions_BS: length_M.reshape([M, 1]).add(token_1S), segments_BS: segments_1S.tile([M, 1]) },
      start: n.mod<tf.Scalar>(int(S)),
    };
  };
  const full = ofSize(sizes.full_attention);
  const isRing = sizes.sliding_attention < sizes.full_attention;
  return { full_attention: full, sliding_attention: isRing ? ofSize(sizes.sliding_attention) : full };
}

/** The rows of a cache at these indices. */
export const takeRows = (cache: Cache, index: tf.Tensor1D): Cache =>
  cache.map(({ k_BKHS, v_BKSH }) => ({ k_BKHS: rowsOf(k_BKHS, index), v_BKSH: rowsOf(v_BKSH, index) }));

const rowsOf = (x: tf.Tensor4D, index: tf.Tensor1D): tf.Tensor4D =>
  gatherRows(x.reshape([x.shape[0], -1]), index).reshape([index.shape[0], ...x.shape.slice(1)]);

/** A cache with room for more tokens. Rings do not grow: a slot that is added would break their round. */
export const extendCache = (cache: Cache, sizes: ByType<number>, config: ModelConfig): Cache =>
  cache.map(({ k_BKHS, v_BKSH }, layer) => {
    const [, , S, H] = v_BKSH.shape;
    const more = sizes[config.layerTypes[layer]!] - S;
    if (more <= 0) return { k_BKHS, v_BKSH };
    const empty = (...shape: [number, number, number, number]) => tf.fill<tf.Rank.R4>(shape, 0);
    const [M, K] = k_BKHS.shape;
    return {
      k_BKHS: tf.concat4d([k_BKHS, empty(M, K, H, more)], 3),
      v_BKSH: tf.concat4d([v_BKSH, empty(M, K, more, H)], 2),
    };
  });
