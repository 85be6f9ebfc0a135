/** How good a model is: rewards of greedy and of sampled completions, and how far it has moved from a reference. */

import { jit, tf } from "tfjs-jit";
import { byCompletion, listSequences } from "../model/batch.js";
import type { ModelConfig } from "../model/config.js";
import { type LazyLogits, logitsOf } from "../model/head.js";
import type { LoadedModel } from "../model/loaded.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { type BatchTensors, batchTensors, completionHidden } from "../model/scoring.js";
import { deriveSeed } from "./batches.js";
import { textOf } from "./data.js";
import { type EncodedRow, sizesOfRows } from "./encode.js";
import { divergence } from "./losses.js";
import { type Reward, rewarder } from "./reward-model.js";
import { decodeAll, rollOut } from "./rollouts.js";
import { mean } from "./statistics.js";
import { tokenValues } from "./token-loss.js";

export type EvaluationOptions = {
  readonly reward: Reward;
  readonly max_new_tokens: number;
  /** Completions at a time; every batch is filled up to it, so that one program serves all. */
  readonly batch_size: number;
  /** int32 */
  readonly seed: number;
  /** Awaited between batches. */
  readonly breathe: () => Promise<void>;
};

/** A completion and its reward. */
export type Judged = {
  readonly prompt: string;
  readonly completion: string;
  /** null where the row has none. */
  readonly answer: string | null;
  readonly reward: number;
};

/**
 * `samples` completions of each row (those of the first row, then those of the second, ...): greedy at temperature 0.
 * With a reference, also each one's KL to it, in nats.
 */
export async function judge(
  model: LoadedModel,
  rows: readonly EncodedRow[],
  { samples, temperature }: { readonly samples: number; readonly temperature: number },
  options: EvaluationOptions,
  reference: LoadedModel | null = null,
): Promise<{ judged: Judged[]; kl: number[] }> {
  const judged: Judged[] = [];
  const kl: number[] = [];
  const size = Math.max(1, Math.floor(options.batch_size / samples));
  const sizes = sizesOfRows(rows, { rows: size, samples, maxNewTokens: options.max_new_tokens });
  const { reward, max_new_tokens: maxNewTokens } = options;
  const rewardsOf = await rewarder(reward, rows, { maxNewTokens, size: size * samples });
  for (let begin = 0; begin < rows.length; begin += size) {
    const part = rows.slice(begin, begin + size);
    const filled = Array.from({ length: size }, (_, i) => part[i % part.length]!.prompt);
    const seed = deriveSeed(options.seed, "judge", begin);
    const { sequences, completions } = rollOut(model, filled, sizes, { temperature, seed });
    const own = completions.slice(0, part.length * samples);
    const texts = await decodeAll(model.folder, own);
    const completed = texts.map((text, c) => ({ row: part[Math.floor(c / samples)]!, text }));
    const rewards = await rewardsOf(completed);
    completed.forEach(({ row: { row }, text: completion }, c) => {
      const prompt = row.prompt ?? textOf(row.messages!.at(-1)!);
      judged.push({ prompt, completion, answer: row.answer ?? null, reward: rewards[c]! });
    });
    if (reference !== null) {
      const batch = listSequences(sequences, sizes);
      const configs = [model.folder.config, reference.folder.config] as const;
      const kls = tf.tidy(() => {
        const kl_W = tokenKl(model.parameters, reference.parameters, configs, batchTensors(batch));
        return byCompletion(batch, kl_W.dataSync() as Float32Array).slice(0, own.length);
      });
      kl.push(...kls.map((values) => values.reduce((a, b) => a + b, 0)));
    }
    await options.breathe();
  }
  return { judged, kl };
}

/** Sampled rewards, by prompt. */
export type SampledReward = {
  /** Mean reward of each row's completions. */
  readonly byRow: Float64Array;
  /** KL(model || reference) in nats per completion, the mean over all. NaN without a reference. */
  readonly kl: number;
  /** Of the first completion of each row. */
  readonly judged: readonly Judged[];
};

/** `samples` completions of each row at temperature 1. */
export async function sampledReward(
  model: LoadedModel,
  rows: readonly EncodedRow[],
  samples: number,
  options: EvaluationOptions,
  reference: LoadedModel | null,
): Promise<SampledReward> {
  const { judged, kl } = await judge(model, rows, { samples, temperature: 1 }, options, reference);
  const byRow = Float64Array.from(rows, (_, row) =>
    mean(judged.slice(row * samples, (row + 1) * samples).map(({ reward }) => reward)),
  );
  return { byRow, kl: mean(kl), judged: judged.filter((_, i) => i % samples === 0) };
}

/** KL(model || reference) at each token of the completions, exact over the vocabulary, [W]. */
const tokenKl = jit(function tokenKl(
  model: Parameters,
  reference: Parameters,
  configs: readonly [ModelConfig, ModelConfig],
  batch: BatchTensors,
): tf.Tensor {
  const [q, p] = [model, reference].map((parameters, i) =>
    completionHidden(readParameters(parameters), configs[i]!, batch),
  ) as [LazyLogits, LazyLogits];
  return tokenValues(q, (q_CV, chunkOf) => {
    const p_CV = logitsOf({ ...p, hidden_WD: chunkOf(p.hidden_WD) });
    return divergence(q_CV, p_CV, { beta: 1, temperature: 1 });
  });
});
