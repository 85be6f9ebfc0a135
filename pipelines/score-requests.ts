/** Any number of sequences through one model, some at a time. */
import { paddedLength } from "../model/batch.js";
import type { ModelConfig } from "../model/config.js";
import type { Parameters } from "../model/parameters.js";
import { scoreBatch } from "../teacher/in-process.js";
import type { ScoreRequest } from "../teacher/teacher.js";
import type { TaskContext } from "./events.js";

/** ln p of the tokens that each request asks for, `rows` requests at once, padded to at most `limit` tokens. */
export async function scoreRequests(
  parameters: Parameters,
  config: ModelConfig,
  requests: readonly ScoreRequest[],
  { rows, limit }: { readonly rows: number; readonly limit: number },
  { signal, breathe }: TaskContext,
): Promise<Float32Array[]> {
  const logprobs: Float32Array[] = [];
  for (let begin = 0; begin < requests.length; begin += rows) {
    if (begin > 0) {
      await breathe();
      signal.throwIfAborted();
    }
    const some = requests.slice(begin, begin + rows);
    const length = paddedLength(Math.max(...some.map(({ ids }) => ids.length)), limit);
    const scores = scoreBatch(parameters, config, { requests: some, k: 0, rows, length });
    logprobs.push(...scores.map(({ actual }) => actual));
  }
  return logprobs;
}
