/**
 * The slow path: one sequence by itself, without padding, cache, shared prompts or anything else beside it. The golden
 * files say that such a forward pass is that of transformers (gemma2.test.ts).
 */
import { tf } from "tfjs-jit";
import type { Gemma2Config } from "../../model/config.js";
import { forward, logits, type Weights } from "../../model/gemma2.js";

/** Logits [T, V] at each token of a sequence: those at token t predict token t + 1. */
export function logitsAlone(weights: Weights, config: Gemma2Config, ids: readonly number[]): tf.Tensor2D {
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
  config: Gemma2Config,
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
  config: Gemma2Config,
  prompt: readonly number[],
  completion: readonly number[],
): number[][] => tf.tidy(() => completionLogitsAlone(weights, config, prompt, completion).arraySync().map(logSoftmax));
