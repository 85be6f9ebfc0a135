/**
 * Grouped-query attention of a list of tokens, which stand in a grid (token-list.ts).
 *
 * Shape suffixes: M tokens of a list, in a grid of B rows and T slots; S slots that a row may look at; W tokens of the
 * list whose hidden states are wanted; N query heads, K key/value heads, H head size.
 */
import { gatherRows, tf } from "tfjs-jit";
import type { Gemma2Config, LayerType } from "./config.js";

/** Where the tokens of a list stand in a grid, and back; int32. See token-list.ts. */
export interface Layout {
  /** Which token; -1 for padding. */
  readonly token_BT: tf.Tensor2D;
  /** row * T + slot. */
  readonly slot_M: tf.Tensor1D;
}

/** A list of tokens; all int32. */
export interface Block {
  readonly ids_M: tf.Tensor1D;
  /** Rotary positions. */
  readonly positions_M: tf.Tensor1D;
  /** A token sees those of its own segment and of segment 0, up to its own position. */
  readonly segments_M: tf.Tensor1D;
  readonly layout: Layout;
}

/** The tokens whose hidden states are wanted: the last layer computes no others. */
export interface Wanted {
  readonly token_W: tf.Tensor1D;
  /** Of the W tokens as queries. */
  readonly layout: Layout;
}

/** What the slots that a row may look at hold, int32. */
export interface Keys {
  readonly positions_BS: tf.Tensor2D;
  /** -1 for padding. */
  readonly segments_BS: tf.Tensor2D;
}

/** Keys and values of the slots that a layer's queries look at. */
export interface LayerCache {
  readonly k_BKSH: tf.Tensor4D;
  readonly v_BKSH: tf.Tensor4D;
}

/** What a block looks at where nothing came before it. */
export function ownKeys({ positions_M, segments_M, layout: { token_BT } }: Block): Keys {
  const isToken_BT = token_BT.greaterEqual(tf.scalar(0, "int32"));
  const segments_BT = tf.where(isToken_BT, at(segments_M, token_BT), tf.fill(token_BT.shape, -1, "int32"));
  return { positions_BS: at(positions_M, token_BT), segments_BS: segments_BT };
}

/** Tokens that look. */
type Looking = Pick<Block, "positions_M" | "segments_M" | "layout">;

export const pick = ({ positions_M, segments_M }: Block, { token_W, layout }: Wanted): Looking => ({
  positions_M: at(positions_M, token_W),
  segments_M: at(segments_M, token_W),
  layout,
});

/** What the layers need to know of tokens that look. */
export function queriesOf({ positions_M, segments_M, layout }: Looking, keys: Keys, config: Gemma2Config) {
  const { token_BT } = layout;
  const queries = { positions_BT: at(positions_M, token_BT), segments_BT: at(segments_M, token_BT) };
  return { layout, rotate: rotary(positions_M, config), maskOf: masks(queries, keys, config) };
}

/** values[index], of any shape; an index of -1 gives any value. */
const at = <T extends tf.Tensor>(values: tf.Tensor1D, index: T): T =>
  gatherRows(values.reshape([-1, 1]), index.relu()).reshape(index.shape) as T;

/** Heads of a list of tokens into the grid, where padding holds any token's. */
export function spread(x_MNH: tf.Tensor3D, { token_BT }: Layout): tf.Tensor4D {
  const [M, N, H] = x_MNH.shape;
  const [B, T] = token_BT.shape;
  const first_B1T = token_BT.relu().mul(tf.scalar(N, "int32")).reshape([B, 1, T]);
  const row_BNT = first_B1T.add(tf.range(0, N, 1, "int32").reshape([1, N, 1]));
  return gatherRows(x_MNH.reshape([M * N, H]), row_BNT);
}

/** The inverse of `spread`, with the heads of a token side by side: [M, N * H]. */
export function collect(x_BNTH: tf.Tensor4D, { slot_M }: Layout): tf.Tensor2D {
  const [B, N, T, H] = x_BNTH.shape;
  const [M, slots] = [slot_M.shape[0], tf.scalar(T, "int32")];
  const row_M = slot_M.floorDiv(slots);
  const first_M1 = row_M
    .mul(tf.scalar((N - 1) * T, "int32"))
    .add(slot_M)
    .reshape([M, 1]);
  const row_MN = first_M1.add(tf.range(0, N * T, T, "int32").reshape([1, N]));
  return gatherRows(x_BNTH.reshape([B * N * T, H]), row_MN).reshape([M, N * H]);
}

/**
 * Grouped-query attention, [B, N, T, H].
 * The query heads that share a key head are stacked along T, so keys and values are never repeated.
 */
export function attention(
  q_BNTH: tf.Tensor4D,
  kv: LayerCache,
  mask_B1TS: tf.Tensor4D,
  config: Gemma2Config,
): tf.Tensor4D {
  const [B, N, T, H] = q_BNTH.shape;
  const [, K, S] = kv.k_BKSH.shape;
  const stacked = q_BNTH.mul(config.queryPreAttnScalar ** -0.5).reshape([B, K, (N / K) * T, H]);
  const scores = softCap(tf.matMul(stacked, kv.k_BKSH, false, true), config.attnLogitSoftcapping);
  const probabilities = tf.softmax(scores.reshape([B, N, T, S]).add(mask_B1TS));
  return tf.matMul(probabilities.reshape([B, K, (N / K) * T, S]), kv.v_BKSH).reshape([B, N, T, H]);
}

/** What is added to a score where a query must not look. Finite, so that a row of padding, which sees nothing, stays finite. */
const HIDDEN = -1e9;

/**
 * Masks [B, 1, T, S] to add to scores. A token sees the tokens of segment 0 and of its own segment at positions up to
 * its own, in sliding layers only those less than a window before it.
 */
function masks(
  { positions_BT, segments_BT }: { readonly positions_BT: tf.Tensor2D; readonly segments_BT: tf.Tensor2D },
  { positions_BS, segments_BS }: Keys,
  config: Gemma2Config,
): (type: LayerType) => tf.Tensor4D {
  const [B, T] = positions_BT.shape;
  const S = positions_BS.shape[1];
  const segments_B1S = segments_BS.reshape([B, 1, S]);
  const isOwn_BTS = segments_B1S
    .equal(segments_BT.reshape([B, T, 1]))
    .logicalOr(segments_B1S.equal(tf.scalar(0, "int32")));
  const distance_BTS = positions_BT.reshape([B, T, 1]).sub(positions_BS.reshape([B, 1, S]));
  const mask = (visible_BTS: tf.Tensor): tf.Tensor4D =>
    visible_BTS.toFloat().sub(1).mul(-HIDDEN).reshape([B, 1, T, S]) as tf.Tensor4D;

  const past_BTS = isOwn_BTS.logicalAnd(distance_BTS.greaterEqual(tf.scalar(0, "int32")));
  const full = mask(past_BTS);
  const slides = config.slidingWindow < S && config.layerTypes.includes("sliding_attention");
  const window = tf.scalar(config.slidingWindow, "int32");
  const sliding = slides ? mask(past_BTS.logicalAnd(distance_BTS.less(window))) : full;
  return (type) => (type === "sliding_attention" ? sliding : full);
}

/**
 * Rotary position embedding: turns each pair (x_i, x_{i + H/2}) by position * theta^(-2i/H) (arXiv 2104.09864).
 * Frequencies are rounded to float32 and multiplied in float32, as in transformers.
 */
function rotary(positions_M: tf.Tensor1D, config: Gemma2Config): (x_MNH: tf.Tensor3D) => tf.Tensor3D {
  const half = config.headDim / 2;
  const frequencies = tf.tensor1d(Array.from({ length: half }, (_, i) => config.ropeTheta ** (-i / half)));
  const angles_M1H = positions_M.toFloat().reshape([-1, 1, 1]).mul(frequencies);
  const cos_M1H = tf.concat([angles_M1H.cos(), angles_M1H.cos()], -1);
  const sin_M1H = tf.concat([angles_M1H.sin().neg(), angles_M1H.sin()], -1);
  return (x_MNH) => {
    const [low, high] = tf.split(x_MNH, 2, -1) as [tf.Tensor3D, tf.Tensor3D];
    return x_MNH.mul(cos_M1H).add(tf.concat([high, low], -1).mul(sin_M1H));
  };
}

/** Squashes x into (-cap, cap): arXiv 2408.00118, section 2. */
export const softCap = <T extends tf.Tensor>(x: T, cap: number | null): T =>
  cap === null ? x : x.div(cap).tanh().mul(cap);
