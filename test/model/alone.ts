/**
 * The slow path: one sequence by itself, without padding, cache, shared prompts or anything else beside it. The golden
 * files say that such a forward pass is that of transformers (forward.test.ts).
 */
import { tf } from "tfjs-jit";
import type { ModelConfig } from "../../model/config.js";
import { forward, logits, type Weights } from "../../model/forward.js";
import { largestDifference } from "./golden.js";

/** Logits [T, V] at each token of a sequence: those at token t predict token t + 1. */
export function logitsAlone(weights: Weights, config: ModelConfig, ids: readonly number[]): tf.Tensor2D {
  const T = ids.length;
  const places = () => tf.range(0, T, 1, "int32");
  const { hidden_MD } = forward(weights, config, {
    ids_M: tf.tensor1d([...ids], "int32"),
    positions_M: places(),
    segments_M: tf.fill([T], 0, "int32"),
    layout: { token_BT: places().reshape([1, T]), slot_M: places() },
  });
  return logits(weights, config, hidden_MD);
}

/** Logits [n, V] that predict each of the n tokens of a completion. */
export function completionLogitsAlone(
  weights: Weights,
  config: ModelConfig,
  prompt: readonly number[],
  completion: readonly number[],
): tf.Tensor2D {
  const logits_TV = logitsAlone(weights, config, [...prompt, ...completion]);
  return logits_TV.slice([prompt.length - 1, 0], [completion.length, -1]);
}

/** ln softmax of one row of logits, in float64. */
export function logSoftmax(logits: readonly number[]): number[] {
  const max = Math.max(...logits);
  const lnSum = max + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0));
  return logits.map((x) => x - lnSum);
}

/** ln p [n][V] of every token in each place of a completion. */
export const completionLogprobsAlone = (
  weights: Weights,
  config: ModelConfig,
  prompt: readonly number[],
  completion: readonly number[],
): number[][] => tf.tidy(() => completionLogitsAlone(weights, config, prompt, completion).arraySync().map(logSoftmax));

/** The gradient of a scalar function by every weight it is given. */
export function gradients(weights: Weights, lossOf: (weights: Weights) => tf.Scalar): Record<string, tf.Tensor> {
  const names = Object.keys(weights);
  const named = (tensors: tf.Tensor[]) => Object.fromEntries(names.map((name, i) => [name, tensors[i]!]));
  return named(tf.grads((...tensors: tf.Tensor[]) => lossOf(named(tensors)))(Object.values(weights)));
}

/** The largest difference of any two tensors of a name, relative to the largest value that is expected of that tensor. */
export function largestRelativeDifference(
  got: Readonly<Record<string, tf.Tensor>>,
  expected: Readonly<Record<string, tf.Tensor>>,
): number {
  const names = Object.keys(expected);
  if (Object.keys(got).join() !== names.join()) throw new Error(`compared ${Object.keys(got)} and ${names}`);
  const differences = names.map((name) => {
    const largest = tf.tidy(() => expected[name]!.abs().max().dataSync()[0]!);
    if (largest === 0) throw new Error(`${name}: only zeros are expected, which says nothing`);
    return largestDifference(got[name]!, expected[name]!) / largest;
  });
  return Math.max(...differences);
}
