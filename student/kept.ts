/**
 * What a stage of sampling goes on with: some of the completions, and the prompts that they see.
 *
 * Shape suffixes: B prompts, G completions of each, C = B * G completions in all; M of them are kept, and R prompts.
 */
import { gatherRows, tf, topK } from "tfjs-jit";
import type { Memory } from "../model/forward.js";
import type { Keys } from "../model/sight.js";
import { firstColumn } from "./choose.js";
import { type Prompts, takeRows } from "./sampling-cache.js";

export type Kept = {
  /** Which completions, by their number in 0..C-1. */
  readonly completion_M: tf.Tensor1D;
  /** Where each of all completions stands among them; M for those that are not kept. */
  readonly place_C: tf.Tensor1D;
  /** Which prompts, by their number in 0..B-1. */
  readonly prompt_R: tf.Tensor1D;
  readonly prompts: Prompts;
  readonly B: number;
  readonly G: number;
};

const int = (value: number) => tf.scalar(value, "int32");
const range = (n: number): tf.Tensor1D => tf.range(0, n, 1, "int32");

/** values[index]. */
export const take = (values: tf.Tensor1D, index: tf.Tensor1D): tf.Tensor1D =>
  gatherRows(values.reshape([-1, 1]), index).reshape([-1]);

export const keepAll = (prompts: Prompts, B: number, G: number): Kept => ({
  completion_M: range(B * G),
  place_C: range(B * G),
  prompt_R: range(B),
  prompts,
  B,
  G,
});

/**
 * Keeps `count` completions, those that have not ended before others, and as many prompts as they can have, all in the
 * order of their numbers. Also says where the completions stood: the order of everything else that is theirs.
 */
export function keepUnfinished(kept: Kept, isDone_M: tf.Tensor1D, count: number): { kept: Kept; order_M: tf.Tensor1D } {
  const isLeft_M = isDone_M.logicalNot<tf.Tensor1D>();
  const order_M = trueFirst(isLeft_M, count);
  const completion_M = take(kept.completion_M, order_M);
  const place_C = places(completion_M, kept.B * kept.G);
  const R = kept.prompt_R.shape[0];
  if (R <= count) return { kept: { ...kept, completion_M, place_C }, order_M };
  const isLeftOf_RM = kept.prompt_R.reshape([R, 1]).equal(promptOf(kept)).logicalAnd(isLeft_M);
  const rows = trueFirst(isLeftOf_RM.any(1) as tf.Tensor1D, count);
  const prompts = promptRows(kept.prompts, rows);
  return { kept: { ...kept, completion_M, place_C, prompt_R: take(kept.prompt_R, rows), prompts }, order_M };
}

function promptRows({ cache, keys: { sliding_attention, full_attention } }: Prompts, rows: tf.Tensor1D): Prompts {
  const of = ({ positions_BS, segments_BS }: Keys): Keys => ({
    positions_BS: gatherRows(positions_BS, rows),
    segments_BS: gatherRows(segments_BS, rows),
  });
  return {
    cache: takeRows(cache, rows),
    keys: { sliding_attention: of(sliding_attention), full_attention: of(full_attention) },
  };
}

/** The number of each kept completion's prompt. */
export const promptOf = ({ completion_M, G }: Kept): tf.Tensor1D => completion_M.floorDiv(int(G));

/** The kept prompts as a grid [R, G] that the kept completions look at. */
export function promptsSeen(kept: Kept): NonNullable<Memory["prompts"]> {
  const { completion_M, place_C, prompt_R, prompts, B, G } = kept;
  const [M, R] = [completion_M.shape[0], prompt_R.shape[0]];
  const token_C = tf.where(place_C.less(int(M)), place_C, tf.fill([B * G], -1, "int32"));
  // A completion that has ended may have lost its prompt: it looks at any.
  const row_M = take(places(prompt_R, B), promptOf(kept)).minimum(int(R - 1));
  return {
    ...prompts,
    layout: {
      token_BT: gatherRows(token_C.reshape([B, G]), prompt_R),
      slot_M: row_M.mul(int(G)).add<tf.Tensor1D>(completion_M.mod(int(G))),
    },
  };
}

/** Values of the kept completions among those of all, 0 where a completion is not kept. */
export const amongAll = (x_M: tf.Tensor1D, { place_C }: Kept): tf.Tensor1D =>
  take(tf.concat1d([x_M, tf.zeros<tf.Rank.R1>([1], x_M.dtype as "int32" | "float32")]), place_C);

/** Where each of the numbers 0..n-1 stands in a list, or the list's length. */
function places(list_M: tf.Tensor1D, n: number): tf.Tensor1D {
  return firstColumn(range(n).reshape([n, 1]).equal(list_M));
}

/** The indices of `count` values, those that are true before others, each in their order. */
function trueFirst(is_M: tf.Tensor1D, count: number): tf.Tensor1D {
  const M = is_M.shape[0];
  const rank_M = is_M.toFloat().mul(M).sub(tf.range(0, M));
  return topK(rank_M, count).indices as tf.Tensor1D;
}
