/** How good a model is: greedy accuracy, sampled reward, and how far it has moved from a reference. */

import { jit, tf } from "tfjs-jit";
import type { Gemma2Config } from "../model/config.js";
import type { LoadedModel } from "../model/loaded.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { type BatchTensors, batchTensors, completionLogits } from "../model/scoring.js";
import { deriveSeed } from "./batches.js";
import { divergence } from "./losses.js";
import { exactMatch } from "./rewards.js";
import { decodeAll, type EncodedRow, rollOut } from "./rollouts.js";
import { mean } from "./statistics.js";

export type EvaluationOptions = {
  readonly max_new_tokens: number;
  /** Completions at a time; every batch is filled up to it, so that one program serves all. */
  readonly batch_size: number;
  /** int32 */
  readonly seed: number;
  /** Awaited between batches. */
  readonly breathe: () => Promise<void>;
};

/** A completion and whether it is the row's answer. */
export type Judged = {
  readonly prompt: string;
  readonly completion: string;
  readonly answer: string;
  readonly reward: 0 | 1;
};

/** One completion of each row, greedy at temperature 0, else sampled. With a reference, also the KL to it, in nats. */
export async function judge(
  model: LoadedModel,
  rows: readonly EncodedRow[],
  temperature: number,
  options: EvaluationOptions,
  reference: LoadedModel | null = null,
): Promise<{ judged: Judged[]; kl: number[] }> {
  const judged: Judged[] = [];
  const kl: number[] = [];
  for (let begin = 0; begin < rows.length; begin += options.batch_size) {
    const part = rows.slice(begin, begin + options.batch_size);
    const filled = Array.from({ length: options.batch_size }, (_, i) => part[i % part.length]!.prompt);
    const seed = deriveSeed(options.seed, "judge", begin);
    const { batch, completions } = rollOut(model, filled, { maxNewTokens: options.max_new_tokens, temperature, seed });
    const texts = await decodeAll(model.folder, completions.slice(0, part.length));
    part.forEach(({ row }, i) => {
      const [completion, answer] = [texts[i]!, row.answer ?? ""];
      judged.push({
        prompt: row.prompt ?? row.messages!.at(-1)!.content,
        completion,
        answer,
        reward: exactMatch(completion, answer),
      });
    });
    if (reference !== null) {
      const tensors = batchTensors(batch);
      const configs = [model.folder.config, reference.folder.config] as const;
      const kl_B = completionKl(model.parameters, reference.parameters, configs, tensors);
      kl.push(...kl_B.dataSync().slice(0, part.length));
      tf.dispose({ ...tensors, kl_B });
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
  const repeated = rows.flatMap((row) => new Array<EncodedRow>(samples).fill(row));
  const { judged, kl } = await judge(model, repeated, 1, options, reference);
  const byRow = Float64Array.from(rows, (_, row) =>
    mean(judged.slice(row * samples, (row + 1) * samples).map(({ reward }) => reward)),
  );
  return { byRow, kl: mean(kl), judged: judged.filter((_, i) => i % samples === 0) };
}

/** Sum over a completion's tokens of KL(model || reference), exact over the vocabulary, [B]. */
const completionKl = jit(function completionKl(
  model: Parameters,
  reference: Parameters,
  configs: readonly [Gemma2Config, Gemma2Config],
  batch: BatchTensors,
): tf.Tensor {
  const [q_NV, p_NV] = [model, reference].map((parameters, i) =>
    completionLogits(readParameters(parameters), configs[i]!, batch),
  ) as [tf.Tensor2D, tf.Tensor2D];
  const kl_N = divergence(q_NV, p_NV, { beta: 1, temperature: 1 });
  return kl_N.mul(batch.counted_N).reshape([batch.ids_BT.shape[0], -1]).sum(1);
});
