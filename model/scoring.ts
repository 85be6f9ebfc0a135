/** What a model says of given completions. Shape suffixes as in batch.ts; N here is all B * N completion slots in a row. */
import { tf } from "tfjs-jit";
import type { Batch } from "./batch.js";
import type { Gemma2Config } from "./config.js";
import { forward, logits, positions, type Weights } from "./gemma2.js";

/** A Batch as tensors, with its static sizes. */
export type BatchTensors = {
  readonly promptSlots: number;
  readonly ids_BT: tf.Tensor2D;
  readonly attention_BT: tf.Tensor2D;
  readonly counted_N: tf.Tensor1D;
};

/** The caller disposes them. */
export function batchTensors(batch: Batch): BatchTensors {
  const shape: [number, number] = [batch.rows, batch.promptSlots + batch.completionSlots];
  return {
    promptSlots: batch.promptSlots,
    ids_BT: tf.tensor2d(batch.ids, shape),
    attention_BT: tf.tensor2d(batch.attention, shape),
    counted_N: tf.tensor1d(batch.counted),
  };
}

/** Soft-capped logits [B * N, V] that predict the tokens of the completion slots. The head sees no other slot. Traceable. */
export function completionLogits(weights: Weights, config: Gemma2Config, batch: BatchTensors): tf.Tensor2D {
  const { ids_BT, attention_BT, promptSlots: P } = batch;
  const [B, T] = ids_BT.shape;
  const block = { ids_BT, positions_BT: positions(attention_BT), start: 0, attention_BS: attention_BT };
  const { hidden_BTD } = forward(weights, config, block, null);
  const predicting = hidden_BTD.slice([0, P - 1, 0], [B, T - P, config.hiddenSize]);
  return logits(weights, config, predicting.reshape([-1, config.hiddenSize])) as tf.Tensor2D;
}

/** The ids of the completion slots, [B * N]. */
export function completionIds({ ids_BT, promptSlots: P }: BatchTensors): tf.Tensor1D {
  const [B, T] = ids_BT.shape;
  return ids_BT.slice([0, P], [B, T - P]).reshape([-1]);
}
