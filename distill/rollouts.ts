/** Batches of what a model samples for prompts. */

import { listPrompts, type Sequence, type Sizes } from "../model/batch.js";
import type { ModelFolder } from "../model/load.js";
import type { LoadedModel } from "../model/loaded.js";
import { type Completion, type SamplingOptions, sampleCompletions } from "../student/sample.js";

/**
 * Samples completions of each prompt: those of the first prompt, then those of the second, ... Their log-probabilities
 * are those of what they were drawn from.
 */
export function rollOut(
  { folder, parameters }: LoadedModel,
  prompts: readonly (readonly number[])[],
  sizes: Sizes,
  options: Pick<SamplingOptions, "temperature" | "seed">,
): { sequences: Sequence[]; completions: Completion[] } {
  const { samples } = sizes;
  const completions = sampleCompletions(parameters, folder.config, listPrompts(prompts, sizes), {
    ...options,
    samples,
    maxNewTokens: sizes.maxNewTokens,
    topK: 0,
    topP: 1,
    // Greedy samples come from no distribution.
    logprobTemperature: options.temperature || 1,
    stopIds: folder.stopIds,
  });
  const sequences = prompts.map((prompt, row) => ({
    prompt,
    completions: completions.slice(row * samples, (row + 1) * samples).map(({ ids }) => ids),
  }));
  return { sequences, completions };
}

/** Texts of completions, special tokens left out. */
export const decodeAll = (folder: ModelFolder, completions: readonly Completion[]): Promise<string[]> =>
  Promise.all(completions.map(({ ids }) => folder.tokenizer!.decode(ids)));
