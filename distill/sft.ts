/** Supervised fine-tuning: cross-entropy on the completions in the data. */

import { jit, tf } from "tfjs-jit";
import { listSequences } from "../model/batch.js";
import type { Gemma2Config } from "../model/config.js";
import type { LoadedModel } from "../model/loaded.js";
import { type BatchTensors, batchTensors, completionLogits } from "../model/scoring.js";
import { createTrainable, disposeMoments, minimise, type Trainable } from "../student/optimiser.js";
import { planBatch } from "./batches.js";
import { crossEntropy, tokenMean } from "./losses.js";
import { type EncodedRow, encodeCompletions, meanLength, sizesOfRows } from "./rollouts.js";
import { compileSchedules, type Optimiser, optimiserAt, type TrainingSettings } from "./settings.js";
import { type StageContext, train } from "./training.js";

/** The `sft` section of the config, which documents each key. */
export type SftSettings = TrainingSettings & { readonly batch_size: number };

/** Trains the model in place. */
export async function sft(
  model: LoadedModel,
  rows: readonly EncodedRow[],
  settings: SftSettings,
  context: StageContext,
): Promise<void> {
  const { config } = model.folder;
  const { steps, batch_size: size, max_new_tokens: maxNewTokens } = settings;
  const completions = await encodeCompletions(model.folder, rows, maxNewTokens);
  const at = await compileSchedules(settings, ["learning_rate", "weight_decay", "max_grad_norm"]);
  const trainable = createTrainable(model.parameters);
  const sizes = sizesOfRows(rows, { rows: size, samples: 1, maxNewTokens });

  await train(trainable, {}, settings, context, async (step) => {
    const begin = performance.now();
    const now = at({ step, steps, iteration: context.iteration });
    const picked = planBatch({ seed: context.seed, stage: context.stage, step, rows: rows.length, size });
    const sequences = picked.map((i) => ({ prompt: rows[i]!.prompt, completions: [completions[i]!] }));
    const tensors = batchTensors(listSequences(sequences, sizes));
    const optimiser = optimiserAt(settings, step, now);
    const result = sftStep(trainable, config, tensors, optimiser);
    const [loss, gradNorm] = [result.loss.dataSync()[0]!, result.gradNorm.dataSync()[0]!];
    tf.dispose([tensors, optimiser, result] as unknown as tf.TensorContainer);
    const length = meanLength(picked.map((i) => completions[i]!));
    return {
      loss,
      learning_rate: now.learning_rate,
      grad_norm: gradNorm,
      completion_length: length,
      tokens_per_second: (1000 * length * size) / (performance.now() - begin),
    };
  });
  disposeMoments(trainable);
}

const sftStep = jit(function sftStep(
  trainable: Trainable,
  config: Gemma2Config,
  batch: BatchTensors,
  optimiser: Optimiser,
): { loss: tf.Tensor; gradNorm: tf.Tensor } {
  const { target_W, counted_W } = batch;
  const { loss, gradNorm } = minimise(
    trainable,
    (weights) => tokenMean(crossEntropy(completionLogits(weights, config, batch), target_W), counted_W),
    optimiser.adamw,
    optimiser.scalars,
  );
  return { loss, gradNorm };
});
