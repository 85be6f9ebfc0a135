/**
 * Grouped-query attention of a list of tokens, which stand in a grid (token-list.ts), or in two: the grid of what they
 * were written into, and that of prompts which several of them share.
 *
 * Shape suffixes: M tokens of a list, in a grid of B rows and T slots; S slots that a row may look at; W tokens of the
 * list whose hidden states are wanted; N query heads, K key/value heads, H head size.
 */
import { gatherRows, tf } from "tfjs-jit";
import type { ModelConfig } from "./config.js";
import type { ByType, LayerType, Rope } from "./config-keys.js";

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

/**
 * Keys and values of the slots that a layer's queries look at. The keys stand as their product with a query reads them:
 * turning them costs as much as the product.
 */
export interface LayerCache {
  readonly k_BKHS: tf.Tensor4D;
  readonly v_BKSH: tf.Tensor4D;
}

/** What a block looks at where nothing came before it. */
export function ownKeys({ positions_M, segments_M, layout: { token_BT } }: Block): Keys {
  const isToken_BT = token_BT.greaterEqual(tf.scalar(0, "int32"));
  const segments_BT = tf.where(isToken_BT, at(segments_M, token_BT), tf.fill(token_BT.shape, -1, "int32"));
  return { positions_BS: at(positions_M, token_BT), segments_BS: segments_BT };
}

/** Tokens that look. */
export type Looking = Pick<Block, "positions_M" | "segments_M" | "layout">;

export const pick = ({ positions_M, segments_M }: Block, { token_W, layout }: Wanted): Looking => ({
  positions_M: at(positions_M, token_W),
  segments_M: at(segments_M, token_W),
  layout,
});

/** A grid that tokens look at. */
export interface Grid {
  /** Where in its rows they look. */
  readonly layout: Layout;
  readonly keys: ByType<Keys>;
}

/** What the layers need to know of tokens that look at one grid or at two. */
export function queriesOf({ positions_M, segments_M }: Looking, grids: readonly Grid[], config: ModelConfig): Queries {
  const slots = grids.reduce((sum, { keys }) => sum + keys.full_attention.positions_BS.shape[1], 0);
  const slides = config.slidingWindow < slots && config.layerTypes.includes("sliding_attention");
  const views = grids.map(({ layout, keys }) => {
    const { token_BT } = layout;
    const queries = { positions_BT: at(positions_M, token_BT), segments_BT: at(segments_M, token_BT) };
    const full = mask(queries, keys.full_attention);
    const sliding = slides ? mask(queries, keys.sliding_attention, config.slidingWindow) : full;
    return { layout, masks: { sliding_attention: sliding, full_attention: full } };
  });
  return { rotations: rotations(positions_M, config), views };
}

export interface Queries {
  readonly rotations: ByType<Rotation>;
  /** Of each grid, what is added to scores to hide slots, [B, 1, T, S]. */
  readonly views: readonly { readonly layout: Layout; readonly masks: ByType<tf.Tensor4D> }[];
}

/** What tokens see in a layer of a type that keeps this of each grid. */
export const seenIn = (type: LayerType, { views }: Queries, caches: readonly LayerCache[]): Seen[] =>
  views.map(({ layout, masks }, i) => ({ layout, mask_B1TS: masks[type], kv: caches[i]! }));

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
function collect(x_BNTH: tf.Tensor4D, { slot_M }: Layout): tf.Tensor2D {
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

/** A grid that queries look at, in one layer. */
export interface Seen {
  readonly layout: Layout;
  /** What is added to scores to hide slots, [B, 1, T, S]. */
  readonly mask_B1TS: tf.Tensor4D;
  readonly kv: LayerCache;
}

/** Grouped-query attention of a list of queries to everything in one or two grids, with the heads of a token side by side: [M, N * H]. */
export function attention(q_MNH: tf.Tensor3D, [own, other]: readonly Seen[], config: ModelConfig): tf.Tensor2D {
  const scaled = q_MNH.mul<tf.Tensor3D>(config.queryPreAttnScalar ** -0.5);
  if (other === undefined) {
    const probabilities_BNTS = tf.softmax(scores(scaled, own!, config));
    return collect(mixed(probabilities_BNTS, own!.kv), own!.layout);
  }
  // One softmax over both grids: each gives its sum of exp(score) * value, with the sum of exp(score) and the largest score.
  const [M, N, H] = q_MNH.shape;
  const [a, b] = [own!, other].map((seen) => {
    const scores_BNTS = scores(scaled, seen, config);
    const largest_BNT1 = scores_BNTS.max(-1, true);
    const weights_BNTS = scores_BNTS.sub<tf.Tensor4D>(largest_BNT1).exp();
    const parts = [mixed(weights_BNTS, seen.kv), weights_BNTS.sum(-1, true), largest_BNT1] as tf.Tensor4D[];
    return tf.split(collect(tf.concat(parts, -1), seen.layout).reshape([M, N, H + 2]), [H, 1, 1], -1);
  }) as [Part, Part];
  const largest_MN1 = a[2].maximum(b[2]);
  const [shareOfA, shareOfB] = [a[2].sub(largest_MN1).exp(), b[2].sub(largest_MN1).exp()];
  const sum = (part: 0 | 1) => a[part].mul(shareOfA).add(b[part].mul(shareOfB));
  return sum(0)
    .div(sum(1))
    .reshape([M, N * H]);
}

type Part = [sum_MNH: tf.Tensor, weight_MN1: tf.Tensor, largest_MN1: tf.Tensor];

/** The query heads that share a key head are stacked along T, so keys and values are never repeated. */
function scores(q_MNH: tf.Tensor3D, { kv, layout, mask_B1TS }: Seen, config: ModelConfig): tf.Tensor4D {
  const q_BNTH = spread(q_MNH, layout);
  const [B, N, T, H] = q_BNTH.shape;
  const [, K, , S] = kv.k_BKHS.shape;
  const capped = softCap(tf.matMul(q_BNTH.reshape([B, K, (N / K) * T, H]), kv.k_BKHS), config.attnLogitSoftcapping);
  return capped.reshape([B, N, T, S]).add(mask_B1TS);
}

/** Values in the proportions of the weights. */
function mixed(weights_BNTS: tf.Tensor4D, { v_BKSH }: LayerCache): tf.Tensor4D {
  const [B, N, T, S] = weights_BNTS.shape;
  const [, K, , H] = v_BKSH.shape;
  return tf.matMul(weights_BNTS.reshape([B, K, (N / K) * T, S]), v_BKSH).reshape([B, N, T, H]);
}

/** What is added to a score where a query must not look. Finite, so that a row of padding, which sees nothing, stays finite. */
const HIDDEN = -1e9;

/**
 * A mask [B, 1, T, S] to add to scores. A token sees the tokens of segment 0 and of its own segment at positions up to
 * its own, and with a window only those less than it before.
 */
function mask(
  { positions_BT, segments_BT }: { readonly positions_BT: tf.Tensor2D; readonly segments_BT: tf.Tensor2D },
  { positions_BS, segments_BS }: Keys,
  window: number | null = null,
): tf.Tensor4D {
  const [B, T] = positions_BT.shape;
  const S = positions_BS.shape[1];
  const segments_B1S = segments_BS.reshape([B, 1, S]);
  const isOwn_BTS = segments_B1S
    .equal(segments_BT.reshape([B, T, 1]))
    .logicalOr(segments_B1S.equal(tf.scalar(0, "int32")));
  const distance_BTS = positions_BT.reshape([B, T, 1]).sub(positions_BS.reshape([B, 1, S]));
  const past_BTS = isOwn_BTS.logicalAnd(distance_BTS.greaterEqual(tf.scalar(0, "int32")));
  const seen_BTS = window === null ? past_BTS : past_BTS.logicalAnd(distance_BTS.less(tf.scalar(window, "int32")));
  return seen_BTS.toFloat().sub(1).mul(-HIDDEN).reshape([B, 1, T, S]);
}

/** What turns the heads of each token; one for both types of layers where their frequencies are the same. */
function rotations(positions_M: tf.Tensor1D, { rope, headDim }: ModelConfig): ByType<Rotation> {
  const { sliding_attention: sliding, full_attention: full } = rope;
  const ofFull = rotation(positions_M, full, headDim);
  const isSame = sliding.theta === full.theta && sliding.factor === full.factor;
  return { full_attention: ofFull, sliding_attention: isSame ? ofFull : rotation(positions_M, sliding, headDim) };
}

export interface Rotation {
  readonly cos_M1H: tf.Tensor3D;
  /** Negated in its first half. */
  readonly sin_M1H: tf.Tensor3D;
}

/**
 * Rotary position embedding: turns each pair (x_i, x_{i + H/2}) by position * theta^(-2i/H) / factor (arXiv 2104.09864).
 * Frequencies are rounded to float32 and multiplied in float32, as in transformers.
 */
function rotation(positions_M: tf.Tensor1D, { theta, factor }: Rope, headDim: number): Rotation {
  const half = headDim / 2;
  const frequencies = tf.tensor1d(Array.from({ length: half }, (_, i) => Math.fround(theta ** (-i / half)) / factor));
  const angles_M1H = positions_M.toFloat().reshape([-1, 1, 1]).mul(frequencies);
  return {
    cos_M1H: tf.concat([angles_M1H.cos(), angles_M1H.cos()], -1) as tf.Tensor3D,
    sin_M1H: tf.concat([angles_M1H.sin().neg(), angles_M1H.sin()], -1) as tf.Tensor3D,
  };
}

export function rotate(x_MNH: tf.Tensor3D, { cos_M1H, sin_M1H }: Rotation): tf.Tensor3D {
  const [low, high] = tf.split(x_MNH, 2, -1) as [tf.Tensor3D, tf.Tensor3D];
  return x_MNH.mul(cos_M1H).add(tf.concat([high, low], -1).mul(sin_M1H));
}

/** Squashes x into (-cap, cap): arXiv 2408.00118, section 2. */
export const softCap = <T extends tf.Tensor>(x: T, cap: number | null): T =>
  cap === null ? x : x.div(cap).tanh().mul(cap);
