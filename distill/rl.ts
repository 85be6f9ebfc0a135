/**
 * One RL run of WARP (arXiv 2406.16768, section 3.1): REINFORCE with a leave-one-out baseline on
 * r(x, y) - beta_kl (log pi(y | x) - log pi_ema(y | x)), where the anchor pi_ema is the moving average of the policy.
 */

import { jit, tf } from "tfjs-jit";
import { byCompletion } from "../model/batch.js";
import { computedAs, type ModelConfig } from "../model/config.js";
import type { Weights } from "../model/forward.js";
import type { LoadedModel } from "../model/loaded.js";
import { copyParameters, disposeParameters, type Parameters, readParameters } from "../model/parameters.js";
import { type BatchTensors, completionHidden } from "../model/scoring.js";
import { trainingStep } from "../student/optimiser.js";
import { withTrainable } from "../student/trainable.js";
import { deriveSeed, planBatch } from "./batches.js";
import { type EncodedRow, meanLength, sizesOfRows } from "./encode.js";
import { crossEntropy, logProbOf } from "./losses.js";
import { learnFromParts, type MicroBatch, microBatches } from "./micro-batches.js";
import { type Reward, rewarder } from "./reward-model.js";
import { leaveOneOut, logRatio } from "./rewards.js";
import { decodeAll, rollOut } from "./rollouts.js";
import { compileSchedules, optimiserAt, rowsOfPart, type ScheduleValue, type TrainingSettings } from "./settings.js";
import { mean } from "./statistics.js";
import { tokenValues, weightedLoss } from "./token-loss.js";
import { atTemperature, type Coefficient } from "./top-k.js";
import { type StageContext, train } from "./training.js";

/** The `rl` section of the config, which documents each key. */
export type RlSettings = TrainingSettings & {
  readonly prompts: number;
  readonly samples: number;
  readonly beta_kl: ScheduleValue;
  readonly mu: ScheduleValue;
  readonly temperature: ScheduleValue;
};

/** Trains the policy in place; its anchor starts as a copy of it. */
export async function rl(
  policy: LoadedModel,
  reward: Reward,
  rows: readonly EncodedRow[],
  settings: RlSettings,
  context: StageContext,
): Promise<void> {
  const { steps, samples, prompts: size, max_new_tokens: maxNewTokens } = settings;
  const partOf = rowsOfPart(size, settings);
  const rewardsOf = await rewarder(reward, rows, { maxNewTokens, size: partOf * samples });
  const names = ["learning_rate", "weight_decay", "max_grad_norm", "beta_kl", "mu", "temperature"] as const;
  const at = await compileSchedules(settings, names);
  const sizes = sizesOfRows(rows, { rows: size, samples, maxNewTokens });
  const sizesOfPart = sizesOfRows(rows, { rows: partOf, samples, maxNewTokens });

  await withTrainable(policy.parameters, settings, async (trainable) => {
    const config = computedAs(policy.folder.config, { segments: trainable.segments });
    const anchor = copyParameters(trainable.parameters);
    try {
      await train(trainable, anchor, settings, context, async (step, own) => {
        const begin = performance.now();
        const now = at({ step, steps, iteration: context.iteration });
        const picked = planBatch({ seed: context.seed, stage: context.stage, step, rows: rows.length, size });
        const seed = deriveSeed(context.seed, context.stage, "sample", step);
        const prompts = picked.map((i) => rows[i]!.prompt);
        const { sequences, completions } = rollOut(policy, prompts, sizes, { temperature: now.temperature, seed });
        const parts = microBatches(sequences, sizesOfPart, own);
        const temperature = now.temperature === 1 ? 1 : own(tf.scalar(now.temperature));
        // The sampler has told the policy's own.
        const ofAnchor = parts.flatMap(({ batch, tensors }) =>
          tf.tidy(() => {
            const logprobs_W = completionLogprobs({ ...trainable.frozen, ...anchor }, config, tensors, temperature);
            return byCompletion(batch, logprobs_W.dataSync() as Float32Array);
          }),
        );

        const texts = await decodeAll(policy.folder, completions);
        const rewards = await rewardsOf(
          texts.map((text, c) => ({ row: rows[picked[Math.floor(c / samples)]!]!, text })),
        );
        const kls = completions.map(({ logprobs }, c) => logRatio(logprobs, ofAnchor[c]!));
        const totals = rewards.map((reward, c) => reward - now.beta_kl * kls[c]!);

        const advantages = leaveOneOut(totals, samples);
        const weights = completions.map((_, c) => advantages[c]! / completions.length);
        const average = { of: anchor, mu: own(tf.scalar(now.mu)) };
        const { loss, grad_norm } = await learnFromParts(
          weighted(parts, weights),
          own(optimiserAt(settings, step, now)),
          (part, optimiser) => {
            const weight_W = own(tf.tensor1d(part.weights));
            const args = [config, part.tensors, weight_W, temperature] as const;
            const result = rlStep(trainable, args, optimiser, average);
            weight_W.dispose();
            return result;
          },
        );
        const length = meanLength(completions.map(({ ids }) => ids));
        return {
          loss,
          reward: mean(rewards),
          kl: mean(kls),
          learning_rate: now.learning_rate,
          grad_norm,
          completion_length: length,
          tokens_per_second: (1000 * length * completions.length) / (performance.now() - begin),
        };
      });
    } finally {
      disposeParameters(anchor);
    }
  });
}

/** Parts with the weight of every token, [W]: that of its completion, 0 where it does not count. */
function weighted(parts: readonly MicroBatch[], weights: readonly number[]) {
  let next = 0;
  return parts.map((part) => {
    const weight_W = new Float32Array(part.batch.counted.length);
    weight_W.set(
      part.batch.sequences.flatMap(({ completions }) =>
        completions.flatMap((ids) => {
          const weight = weights[next++]!;
          return ids.map(() => weight);
        }),
      ),
    );
    return { ...part, weights: weight_W };
  });
}

/** ln pi(token | before) of every token of the completions, [W], under softmax(logits / temperature). */
const completionLogprobs = jit(function completionLogprobs(
  parameters: Parameters,
  config: ModelConfig,
  batch: BatchTensors,
  temperature: Coefficient,
): tf.Tensor {
  return tokenValues(completionHidden(readParameters(parameters), config, batch), (logits_CV, chunkOf) =>
    logProbOf(atTemperature(logits_CV, temperature), chunkOf(batch.target_W)),
  );
});

/**
 * A step on -mean over completions of advantage * ln pi(y | x). A token's weight is the advantage of its completion by the
 * number of completions, 0 where it does not count.
 */
const rlStep = trainingStep(
  "rlStep",
  (policy: Weights, config: ModelConfig, batch: BatchTensors, weight_W: tf.Tensor1D, temperature: Coefficient) =>
    weightedLoss(completionHidden(policy, config, batch), weight_W, (logits_CV, chunkOf) =>
      crossEntropy(atTemperature(logits_CV, temperature), chunkOf(batch.target_W)),
    ),
);
