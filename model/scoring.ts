/** What a model says of given completions. Shape suffixes as in forward.ts; V vocabulary. */
import { device, jit, tf } from "tfjs-jit";
import type { Block, Layout, Wanted } from "./attention.js";
import type { Batch } from "./batch.js";
import { computedAs, type ModelConfig } from "./config.js";
import { headOf, hiddenStates, type Weights } from "./forward.js";
import { type LazyLogits, logitsOf } from "./head.js";
import type { Parameters } from "./parameters.js";
import { isPart } from "./quantised.js";
import type { Layout as HostLayout, TokenList } from "./token-list.js";

/**
 * A forward pass, compiled. On a CPU TensorFlow's own products of bfloat16 are twice as fast as those of float32 or more, those
 * of compiled programs are no faster: a model that is computed in bfloat16 runs on TensorFlow's there, unless it is quantised:
 * they would make the values of all its matrices before the first product.
 */
export function jitForward<A extends readonly unknown[], R>(
  name: string,
  fn: (parameters: Parameters, config: ModelConfig, ...rest: A) => R,
): (parameters: Parameters, config: ModelConfig, ...rest: A) => R {
  const inXla = jit(fn, { name });
  const inKernels = jit(fn, { name, xla: false });
  return (parameters, config, ...rest) =>
    device === "cpu" && config.compute.dtype === "bfloat16" && !Object.keys(parameters).some(isPart)
      ? inKernels(parameters, computedAs(config, { segments: null }), ...rest)
      : inXla(parameters, config, ...rest);
}

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

const layoutTensors = ({ rows, slots, tokenOfSlot, slotOfToken, inOrder }: HostLayout): Layout => ({
  token_BT: tf.tensor2d(tokenOfSlot, [rows, slots]),
  slot_M: tf.tensor1d(slotOfToken),
  inOrder,
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
