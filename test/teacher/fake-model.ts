/** A language model that is a formula: quick, exact, and its scores depend on every token before. */
import type { ScoreRequest, TokenScores } from "../../teacher/teacher.js";

export const VOCAB_SIZE = 11;

/** ln p(. | prefix), [VOCAB_SIZE]: the log-softmax of sines of a running hash of the prefix. */
function logprobs(prefix: readonly number[]): number[] {
  const hash = prefix.reduce((sum, id) => (31 * sum + id + 1) % 1009, 7);
  const logits = Array.from({ length: VOCAB_SIZE }, (_, id) => 3 * Math.sin(hash + 2.1 * id));
  const lnSum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
  return logits.map((logit) => logit - lnSum);
}

export function fakeScores({ ids, from }: ScoreRequest, k: number): TokenScores {
  const rows = ids.slice(from).map((actualId, i) => {
    const all = logprobs(ids.slice(0, from + i));
    const order = all.map((_, id) => id).sort((a, b) => all[b]! - all[a]!);
    const mass = order.slice(k).reduce((sum, id) => sum + Math.exp(all[id]!), 0);
    return { top: order.slice(0, k), all, actual: all[actualId]!, tail: Math.log(mass) };
  });
  return {
    k,
    ids: Int32Array.from(rows.flatMap(({ top }) => top)),
    logprobs: Float32Array.from(rows.flatMap(({ top, all }) => top.map((id) => all[id]!))),
    actual: Float32Array.from(rows.map(({ actual }) => actual)),
    tail: Float32Array.from(rows.map(({ tail }) => tail)),
  };
}

/** Sequences of 3 to 12 tokens, their first 1 or 2 the prompt. */
export const fakeRequests = (count: number): ScoreRequest[] =>
  Array.from({ length: count }, (_, i) => ({
    ids: Array.from({ length: 3 + (i % 10) }, (_, j) => (i * 7 + j * j) % VOCAB_SIZE),
    from: 1 + (i % 2),
  }));
