/** Supervised fine-tuning: cross-entropy on the completions in the data. */

import { tf } from "tfjs-jit";
import { computedAs, type ModelConfig } from "../model/config.js";
import type { Weights } from "../model/forward.js";
import type { LoadedModel } from "../model/loaded.js";
import { type BatchTensors, completionHidden } from "../model/scoring.js";
import { trainingStep } from "../student/optimiser.js";
import { withTrainable } from "../student/trainable.js";
import { planBatch } from "./batches.js";
import { type EncodedRow, encodeConversations, sizesOfConversations } from "./encode.js";
import { crossEntropy } from "./losses.js";
import { countedTokens, learnFromParts, microBatches } from "./micro-batches.js";
import { compileSchedules, optimiserAt, rowsOfPart, type TrainingSettings } from "./settings.js";
import { meanLoss } from "./token-loss.js";
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
  const { steps, batch_size: size, max_new_tokens: maxNewTokens } = settings;
  const conversations = await encodeConversations(model.folder, rows, maxNewTokens);
  const at = await compileSchedules(settings, ["learning_rate", "weight_decay", "max_grad_norm"]);
  await withTrainable(model.parameters, settings, async (trainable) => {
    const config = computedAs(model.folder.config, { segments: trainable.segments });
    const sizes = sizesOfConversations(conversations, { rows: rowsOfPart(size, settings), maxNewTokens });

    await train(trainable, {}, settings, context, async (step, own) => {
      const begin = performance.now();
      const now = at({ step, steps, iteration: context.iteration });
      const picked = planBatch({ seed: context.seed, stage: context.stage, step, rows: rows.length, size });
      const sequences = picked.map((i) => {
        const { prompt, completion, counted } = conversations[i]!;
        return { prompt, completions: [completion], counted: [counted] };
      });
      const parts = microBatches(sequences, sizes, own);
      const count = countedTokens(parts);
      const tokens = own(tf.scalar(count));
      const { loss, grad_norm } = await learnFromParts(
        parts,
        own(optimiserAt(settings, step, now)),
        ({ tensors }, optimiser) => sftStep(trainable, [config, tensors, tokens], optimiser),
      );
      return {
        loss,
        learning_rate: now.learning_rate,
        grad_norm,
        completion_length: count / size,
        tokens_per_second: (1000 * count) / (performance.now() - begin),
      };
    });
  });
}

const sftStep = trainingStep(
  "sftStep",
  (weights: Weights, config: ModelConfig, { target_W, counted_W, ...lists }: BatchTensors, tokens: tf.Tensor) =>
    meanLoss(completionHidden(weights, config, lists), counted_W, tokens, (logits_CV, chunkOf) =>
      crossEntropy(logits_CV, chunkOf(target_W)),
    ),
);
