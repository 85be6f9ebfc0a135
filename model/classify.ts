/**
 * What a model for sequence classification says, such as a reward model: its `score` head on the last token.
 *
 * Shape suffixes: B rows, D model, L labels.
 */
import { tf } from "tfjs-jit";
import { listPrompts, type Sizes } from "./batch.js";
import type { ModelConfig } from "./config.js";
import { hiddenStates } from "./forward.js";
import { type Parameters, readParameters } from "./parameters.js";
import { jitForward, type ListTensors, listTensors } from "./scoring.js";
import { SCORE } from "./shapes.js";

/**
 * A score for each label, of each sequence: the logits of transformers' Gemma2ForSequenceClassification, which looks at the last
 * token that is no padding.
 */
export function labelScores(
  parameters: Parameters,
  config: ModelConfig,
  sequences: readonly (readonly number[])[],
  sizes: Sizes,
): Float32Array[] {
  return tf.tidy(() => {
    const list = listTensors(listPrompts(sequences, sizes));
    const scores_BL = lastScores(parameters, config, list).dataSync() as Float32Array;
    const labels = config.numLabels!;
    return sequences.map((_, row) => scores_BL.slice(row * labels, (row + 1) * labels));
  });
}

const lastScores = jitForward(
  "labelScores",
  (parameters: Parameters, config: ModelConfig, { block, wanted }: ListTensors): tf.Tensor2D => {
    const weights = readParameters(parameters);
    const hidden_BD = hiddenStates(weights, config, block, wanted);
    return tf.matMul(hidden_BD, weights[SCORE] as tf.Tensor2D, false, true);
  },
);
