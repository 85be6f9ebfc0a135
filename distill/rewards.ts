/**
 * Rewards of sampled completions and the advantages that REINFORCE weighs their tokens by. Pure functions on arrays.
 *
 * WARP (arXiv 2406.16768) rewards r(x, y) - beta_kl (log pi(y | x) - log pi_ema(y | x)), where the anchor pi_ema is the
 * moving average of the policy itself; RLOO (arXiv 2402.14740) subtracts what the prompt's other samples got.
 */

/** 1 if the completion is the answer but for blanks around it, else 0. */
export function exactMatch(completion: string, answer: string): 0 | 1 {
  return completion.trim() === answer.trim() ? 1 : 0;
}

/**
 * log pi(y | x) - log pi_anchor(y | x) of one completion, in nats: sum_t (policy[t] - anchor[t]) of the natural-log probabilities of
 * its counted tokens, the stop token included. Its mean over samples of the policy estimates KL(policy || anchor); one may be negative.
 *
 * @throws RangeError if the two do not hold as many tokens.
 */
export function logRatio(policyLogprobs: ArrayLike<number>, anchorLogprobs: ArrayLike<number>): number {
  if (policyLogprobs.length !== anchorLogprobs.length) {
    throw new RangeError(
      `logRatio: the policy scored ${policyLogprobs.length} tokens, the anchor ${anchorLogprobs.length}: score the same completion`,
    );
  }
  let sum = 0;
  for (let t = 0; t < policyLogprobs.length; t++) sum += policyLogprobs[t]! - anchorLogprobs[t]!;
  return sum;
}

/**
 * Advantage of each completion: its reward minus the mean reward of the other samples of its prompt. Rewards lie prompt by prompt,
 * `samples` of each in a row. A prompt's advantages sum to 0.
 *
 * @throws RangeError if a prompt has fewer than two samples, or the rewards are no whole number of prompts.
 */
export function leaveOneOut(rewards: ArrayLike<number>, samples: number): Float32Array {
  if (!Number.isInteger(samples) || samples < 2) {
    throw new RangeError(
      `leaveOneOut: a baseline of the other samples needs 2 or more samples a prompt, got ${samples}`,
    );
  }
  if (rewards.length % samples !== 0) {
    throw new RangeError(`leaveOneOut: ${rewards.length} rewards are no multiple of ${samples} samples a prompt`);
  }
  const advantages = new Float32Array(rewards.length);
  for (let first = 0; first < rewards.length; first += samples) {
    let sum = 0;
    for (let i = first; i < first + samples; i++) sum += rewards[i]!;
    for (let i = first; i < first + samples; i++) advantages[i] = rewards[i]! - (sum - rewards[i]!) / (samples - 1);
  }
  return advantages;
}
