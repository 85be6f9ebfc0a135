/** What a model says of given completions. Shape suffixes as in forward.ts; V vocabulary. */
import { tf } from "tfjs-jit";
import type { Block, Layout, Wanted } from "./attention.js";
import type { Batch } from "./batch.js";
import type { ModelConfig } from "./config.js";
import { headOf, hiddenStates, type Weights } from "./forward.js";
import { type LazyLogits, logitsOf } from "./head.js";
import type { Layout as HostLayout, TokenList } from "./token-list.js";

/** A list of tokens on the device. */
export type ListTensors = { readonly block: Block; readonly wanted: Wanted };

/** A batch on the device. */
export type BatchTensors = ListTensors & { readonly target_W: tf.Tensor1D; readonly counted_W: tf.Tensor1D };

/** The caller disposes them. */
export function listTensors({ ids, positions, segments, layout, wanted }: TokenList): ListTensors {
  return {
    block: {
      ids_M: tf.tensor1d(ids),
      positions_M: tf.tensor1d(positions),
      segments_M: tf.tensor1d(segments),
      layout: layoutTensors(layout),
    },
    wanted: { token_W: tf.tensor1d(wanted.tokens), layout: layoutTensors(wanted.layout) },
  };
}

/** The caller disposes them. */
export const batchTensors = ({ tokens, targets, counted }: Batch): BatchTensors => ({
  ...listTensors(tokens),
  target_W: tf.tensor1d(targets),
  counted_W: tf.tensor1d(counted),
});

const layoutTensors = ({ rows, slots, tokenOfSlot, slotOfToken }: HostLayout): Layout => ({
  token_BT: tf.tensor2d(tokenOfSlot, [rows, slots]),
  slot_M: tf.tensor1d(slotOfToken),
});

/** What predicts the completions' tokens. Traceable. */
export const completionHidden = (
  weights: Weights,
  config: ModelConfig,
  { block, wanted }: Pick<BatchTensors, "block" | "wanted">,
): LazyLogits => headOf(weights, config, hiddenStates(weights, config, block, wanted));

/** Soft-capped logits [W, V] that predict the completions' tokens. Traceable. */
export const completionLogits = (
  weights: Weights,
  config: ModelConfig,
  batch: Pick<BatchTensors, "block" | "wanted">,
): tf.Tensor2D => logitsOf(completionHidden(weights, config, batch));
