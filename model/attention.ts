/**
 * Grouped-query attention of a list of tokens, which stand in a grid (token-list.ts), or in two: the grid of what they
 * were written into, and that of prompts which several of them share.
 *
 * Shape suffixes: M tokens of a list, in a grid of B rows and T slots; S slots that a row may look at; W tokens of the
 * list whose hidden states are wanted; N query heads, K key/value heads, H head size.
 */
import { gatherRows, tf } from "tfjs-jit";
import { inBlocks } from "./attention-blocks.js";
import type { ModelConfig } from "./config.js";
import type { ByType, LayerType } from "./config-keys.js";
import { type Rotation, rotations } from "./rotary.js";
import { type Keys, mask, type Sight, sight } from "./sight.js";

/** Where the tokens of a list stand in a grid, and back; int32. See token-list.ts. */
export interface Layout {
  /** Which token; -1 for padding. */
  readonly token_BT: tf.Tensor2D;
  /** row * T + slot. */
  readonly slot_M: tf.Tensor1D;
  /** Whether the slot of every token is its position. @default false: that is not known */
  readonly inOrder?: boolean;
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
    const lookers = { positions_BT: at(positions_M, token_BT), segments_BT: at(segments_M, token_BT) };
    const heads = config.numAttentionHeads;
    const full = sight(lookers, keys.full_attention, heads, null);
    const { inOrder } = layout;
    const sliding = slides ? sight(lookers, keys.sliding_attention, heads, config.slidingWindow, { inOrder }) : full;
    return { layout, sights: { sliding_attention: sliding, full_attention: full } };
  });
  return { rotations: rotations(positions_M, config), views };
}

export interface Queries {
  readonly rotations: ByType<Rotation>;
  /** Of each grid. */
  readonly views: readonly { readonly layout: Layout; readonly sights: ByType<Sight> }[];
}

/** What tokens see in a layer of a type that keeps this of each grid. */
export const seenIn = (type: LayerType, { views }: Queries, caches: readonly LayerCache[]): Seen[] =>
  views.map(({ layout, sights }, i) => ({ layout, sight: sights[type], kv: caches[i]! }));

/** values[index], of any shape; an index of -1 gives any value. */
const at = <T extends tf.Tensor>(values: tf.Tensor1D, index: T): T =>
  gatherRows(values.reshape([-1, 1]), tf.maximum(index, tf.scalar(0, "int32"))).reshape(index.shape) as T;

/** Heads of a list of tokens into the grid, where padding holds any token's. */
export function spread(x_MNH: tf.Tensor3D, { token_BT }: Layout): tf.Tensor4D {
  const [M, N, H] = x_MNH.shape;
  const [B, T] = token_BT.shape;
  const first_B1T = tf.maximum(token_BT, tf.scalar(0, "int32")).mul(tf.scalar(N, "int32")).reshape([B, 1, T]);
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
  readonly sight: Sight;
  readonly kv: LayerCache;
}

/** Grouped-query attention of a list of queries to everything in one or two grids, with the heads of a token side by side: [M, N * H]. */
export function attention(q_MNH: tf.Tensor3D, [own, other]: readonly Seen[], config: ModelConfig): tf.Tensor2D {
  const scaled = q_MNH.mul<tf.Tensor3D>(config.queryPreAttnScalar ** -0.5);
  if (other === undefined) {
    const { layout, kv, sight } = own!;
    const q_BNTH = spread(scaled, layout);
    const look: Look = (q, mask_B1TS, kv) => mixed(tf.softmax(scores(q, kv, mask_B1TS, config)), kv);
    const { mask_B1TS } = sight;
    return collect(mask_B1TS === null ? inBlocks(q_BNTH, sight, kv, look) : look(q_BNTH, mask_B1TS, kv), layout);
  }
  // One softmax over both grids: each gives its sum of exp(score) * value, with the sum of exp(score) and the largest score.
  const [M, N, H] = q_MNH.shape;
  const [a, b] = [own!, other].map((seen) => {
    const { layout, kv, sight } = seen;
    const scores_BNTS = scores(spread(scaled, layout), kv, sight.mask_B1TS ?? mask(sight.lookers, sight), config);
    const largest_BNT1 = scores_BNTS.max(-1, true);
    const weights_BNTS = scores_BNTS.sub<tf.Tensor4D>(largest_BNT1).exp();
    const parts = [mixed(weights_BNTS, kv), weights_BNTS.sum(-1, true), largest_BNT1] as tf.Tensor4D[];
    return tf.split(collect(tf.concat(parts, -1), layout).reshape([M, N, H + 2]), [H, 1, 1], -1);
  }) as [Part, Part];
  const largest_MN1 = a[2].maximum(b[2]);
  const [shareOfA, shareOfB] = [a[2].sub(largest_MN1).exp(), b[2].sub(largest_MN1).exp()];
  const sum = (part: 0 | 1) => a[part].mul(shareOfA).add(b[part].mul(shareOfB));
  return sum(0)
    .div(sum(1))
    .reshape([M, N * H]);
}

/** What queries [B, N, T, H] get of the slots that the mask shows. */
export type Look = (q_BNTH: tf.Tensor4D, mask_B1TS: tf.Tensor4D, kv: LayerCache) => tf.Tensor4D;

type Part = [sum_MNH: tf.Tensor, weight_MN1: tf.Tensor, largest_MN1: tf.Tensor];

/** The query heads that share a key head are stacked along T, so keys and values are never repeated. */
function scores(q_BNTH: tf.Tensor4D, kv: LayerCache, mask_B1TS: tf.Tensor4D, config: ModelConfig): tf.Tensor4D {
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

/** Squashes x into (-cap, cap): arXiv 2408.00118, section 2. */
export const softCap = <T extends tf.Tensor>(x: T, cap: number | null): T =>
  cap === null ? x : x.div(cap).tanh().mul(cap);
