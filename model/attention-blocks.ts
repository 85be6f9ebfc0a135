/**
 * Attention of long rows, a block of queries at a time: memory grows with their length and not with its square. Where all
 * that a query sees is within a window of slots, so does time: a block looks at the slots that its windows cover.
 *
 * Shape suffixes: B rows of a grid, T slots of queries, S slots that they may look at; N query heads, H head size.
 */
import { dynamicSlice, scan, tf } from "tfjs-jit";
import type { LayerCache, Look } from "./attention.js";
import { MAX_SCORES } from "./compute.js";
import { type Keys, mask, type Sight } from "./sight.js";

/** The fewest queries of a block whose keys are some of the slots: smaller products are slower than what they leave out. */
const FEW_QUERIES = 256;

/** What `look` gives for all queries [B, N, T, H], of which it sees as many at a time as MAX_SCORES allows. */
export function inBlocks(q_BNTH: tf.Tensor4D, sight: Sight, kv: LayerCache, look: Look): tf.Tensor4D {
  const [B, N, T, H] = q_BNTH.shape;
  const S = sight.keys.positions_BS.shape[1];
  const { size, blocks, width } = planBlocks(T, S, MAX_SCORES / (B * N), sight.reach);
  const filling = blocks * size - T;
  const cut = (x_BT: tf.Tensor2D) =>
    tf
      .pad(x_BT, [
        [0, 0],
        [0, filling],
      ])
      .reshape<tf.Tensor3D>([B, blocks, size])
      .transpose([1, 0, 2]);
  const { positions_BT, segments_BT } = sight.lookers;
  const q_BNT_H = tf.pad(q_BNTH, [
    [0, 0],
    [0, 0],
    [0, filling],
    [0, 0],
  ]);
  // A block's slots end with its last query's own.
  const begins = Array.from({ length: blocks }, (_, block) =>
    Math.max(0, Math.min((block + 1) * size - width, S - width)),
  );
  const each = {
    q: q_BNT_H.reshape<tf.Tensor5D>([B, N, blocks, size, H]).transpose([2, 0, 1, 3, 4]),
    positions: cut(positions_BT),
    segments: cut(segments_BT),
    begin: tf.tensor1d(begins, "int32"),
  };
  const [, attended] = scan(
    (none: tf.Scalar, { q, positions, segments, begin }) => {
      const lookers = { positions_BT: positions as tf.Tensor2D, segments_BT: segments as tf.Tensor2D };
      const seen = width < S ? slotsFrom(begin as tf.Scalar, width, sight.keys, kv) : { keys: sight.keys, kv };
      const mask_B1TS = mask(lookers, { keys: seen.keys, window: sight.window });
      return [none, look(q as tf.Tensor4D, mask_B1TS, seen.kv) as tf.Tensor];
    },
    tf.scalar(0) as tf.Scalar,
    each,
  );
  return attended
    .transpose([1, 2, 0, 3, 4])
    .reshape<tf.Tensor4D>([B, N, blocks * size, H])
    .slice([0, 0, 0, 0], [B, N, T, H]);
}

/**
 * Blocks of `size` queries that look at `width` slots each, with at most `most` scores of a head. Queries that reach as far
 * as `reach` slots, their own included, see of size + reach - 1 slots all there is.
 */
export function planBlocks(
  T: number,
  S: number,
  most: number,
  reach: number | null,
): { size: number; blocks: number; width: number } {
  const blocksOf = (largest: number) => Math.ceil(T / Math.max(1, Math.floor(largest)));
  if (reach !== null) {
    // size (size + reach - 1) = most.
    const fitting = (Math.sqrt((reach - 1) ** 2 + 4 * most) - (reach - 1)) / 2;
    const blocks = blocksOf(Math.min(fitting, Math.max(reach, FEW_QUERIES)));
    const size = Math.ceil(T / blocks);
    if (size + reach - 1 < S) return { size, blocks, width: size + reach - 1 };
  }
  const blocks = blocksOf(most / S);
  return { size: Math.ceil(T / blocks), blocks, width: S };
}

function slotsFrom(
  begin: tf.Scalar,
  width: number,
  { positions_BS, segments_BS }: Keys,
  { k_BKHS, v_BKSH }: LayerCache,
): { keys: Keys; kv: LayerCache } {
  const [B, K, H] = k_BKHS.shape;
  const columns = (x_BS: tf.Tensor2D) => dynamicSlice(x_BS, [0, begin], [B, width]) as tf.Tensor2D;
  return {
    keys: { positions_BS: columns(positions_BS), segments_BS: columns(segments_BS) },
    kv: {
      k_BKHS: dynamicSlice(k_BKHS, [0, 0, 0, begin], [B, K, H, width]) as tf.Tensor4D,
      v_BKSH: dynamicSlice(v_BKSH, [0, 0, begin, 0], [B, K, width, H]) as tf.Tensor4D,
    },
  };
}
