/** Batched sampling of completions: prompt, loop and choice of tokens are one compiled call. */
import { tf } from "tfjs-jit";
import { untilStop } from "../model/batch.js";
import type { ModelConfig } from "../model/config.js";
import type { Parameters } from "../model/parameters.js";
import { listTensors } from "../model/scoring.js";
import type { TokenList } from "../model/token-list.js";
import { sampleTokens } from "./sampling-loop.js";
import { planStages, type Stage } from "./sampling-stages.js";
import type { StopTexts } from "./stop-texts.js";

export type SamplingOptions = {
  /** Completions of each prompt. */
  readonly samples: number;
  /** The longest completion in tokens, stop token included. */
  readonly maxNewTokens: number;
  /** Divides the logits before the choice; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Choose among the k likeliest tokens; 0 is all. */
  readonly topK: number;
  /** Choose among the likeliest tokens whose mass reaches this much, above 0 and at most 1. */
  readonly topP: number;
  /** Divides the logits of `logprobs`, above 0. */
  readonly logprobTemperature: number;
  /** Tokens that end a completion. */
  readonly stopIds: readonly number[];
  /** Texts after which no more is sampled; what a completion has behind them is for the caller to cut. @default none */
  readonly stopTexts?: StopTexts | null;
  /** int32. The same seed and batch give the same completions. */
  readonly seed: number;
};

export type Completion = {
  /** Up to and including the first stop token. */
  readonly ids: number[];
  /** ln of each id's probability under softmax(logits / logprobTemperature), before top-k and top-p. */
  readonly logprobs: number[];
};

/** The completions of the first prompt, then those of the second, ... */
export function sampleCompletions(
  parameters: Parameters,
  config: ModelConfig,
  prompts: TokenList,
  options: SamplingOptions,
  stages: readonly Stage[] = planStages(prompts.layout.rows * options.samples, options.maxNewTokens),
): Completion[] {
  const { samples, maxNewTokens, temperature, logprobTemperature, seed, stopIds, stopTexts, ...choice } = options;
  const { ids, logprobs } = tf.tidy(() => {
    const sampled = sampleTokens(parameters, config, listTensors(prompts), tf.scalar(seed, "int32"), {
      ...choice,
      samples,
      maxNewTokens,
      stages,
      stopIds,
      stopTexts: stopTexts ? { row_V: tf.tensor1d(stopTexts.row_V), next_K: tf.tensor1d(stopTexts.next_K) } : null,
      temperature: temperature === 0 ? 0 : tf.scalar(temperature),
      logprobTemperature: logprobTemperature === 1 ? 1 : tf.scalar(logprobTemperature),
    });
    return { ids: sampled.ids_CN.dataSync(), logprobs: sampled.logprobs_CN.dataSync() };
  });
  return Array.from({ length: prompts.layout.rows * samples }, (_, c) => {
    const begin = c * maxNewTokens;
    const completion = untilStop([...ids.subarray(begin, begin + maxNewTokens)], stopIds);
    return { ids: completion, logprobs: [...logprobs.subarray(begin, begin + completion.length)] };
  });
}
