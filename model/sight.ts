/**
 * Which slots tokens see: as a mask, or, where that would be large, as what it is made of.
 *
 * Shape suffixes: B rows of a grid, T slots of it whose tokens look, S slots that they may look at.
 */
import { tf } from "tfjs-jit";
import { MAX_SCORES } from "./compute.js";

/** What the slots that a row may look at hold, int32. */
export interface Keys {
  readonly positions_BS: tf.Tensor2D;
  /** -1 for padding. */
  readonly segments_BS: tf.Tensor2D;
}

/** The tokens that look, int32. */
export type Lookers = { readonly positions_BT: tf.Tensor2D; readonly segments_BT: tf.Tensor2D };

/** A token sees the tokens of segment 0 and of its own segment at positions up to its own. */
export interface Sight {
  readonly lookers: Lookers;
  readonly keys: Keys;
  /** Only positions less than this before its own, int32; null: all. */
  readonly window: tf.Tensor | null;
  /** Where a token looks in its own slot and in slots less than this before it alone: the window; null: in any. */
  readonly reach: number | null;
  /** [B, 1, T, S]: what is added to scores to hide slots; null where it is made for some of the queries at a time. */
  readonly mask_B1TS: tf.Tensor4D | null;
}

/**
 * `heads` query heads look at all at once if there are not too many scores. In order, the tokens that look are the keys, and
 * each has its position as its slot.
 */
export function sight(
  lookers: Lookers,
  keys: Keys,
  heads: number,
  window: number | null,
  { inOrder = false } = {},
): Sight {
  const scores = heads * lookers.positions_BT.size * keys.positions_BS.shape[1];
  const reach = inOrder ? window : null;
  const of = { lookers, keys, window: window === null ? null : tf.scalar(window, "int32"), reach };
  return { ...of, mask_B1TS: scores > MAX_SCORES ? null : mask(lookers, of) };
}

/** One of two, where it is data which. */
export function either(condition: tf.Tensor, a: Sight, b: Sight): Sight {
  if (a === b) return a;
  const { lookers, keys } = b;
  const reach = null;
  const all = tf.scalar(2 ** 30, "int32");
  const window = tf.where(condition, a.window ?? all, b.window ?? all);
  if (a.mask_B1TS === null || b.mask_B1TS === null) return { lookers, keys, window, reach, mask_B1TS: null };
  return { lookers, keys, window, reach, mask_B1TS: tf.where(condition, a.mask_B1TS, b.mask_B1TS) as tf.Tensor4D };
}

/** What is added to a score where a query must not look. Finite, so that a row of padding, which sees nothing, stays finite. */
const HIDDEN = -1e9;

/** The mask [B, 1, T, S] of these of the tokens. */
export function mask(
  { positions_BT, segments_BT }: Lookers,
  { keys, window }: Pick<Sight, "keys" | "window">,
): tf.Tensor4D {
  const { positions_BS, segments_BS } = keys;
  const [B, T] = positions_BT.shape;
  const S = positions_BS.shape[1];
  const segments_B1S = segments_BS.reshape([B, 1, S]);
  const isOwn_BTS = segments_B1S
    .equal(segments_BT.reshape([B, T, 1]))
    .logicalOr(segments_B1S.equal(tf.scalar(0, "int32")));
  const distance_BTS = positions_BT.reshape([B, T, 1]).sub(positions_BS.reshape([B, 1, S]));
  const past_BTS = isOwn_BTS.logicalAnd(distance_BTS.greaterEqual(tf.scalar(0, "int32")));
  const seen_BTS = window === null ? past_BTS : past_BTS.logicalAnd(distance_BTS.less(window));
  return seen_BTS.toFloat().sub(1).mul(-HIDDEN).reshape([B, 1, T, S]);
}
