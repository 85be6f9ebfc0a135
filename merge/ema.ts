// The moving anchor of WARP (arXiv 2406.16768, section 3.1): an exponential moving average of the policy's weights.

/** average <- (1 - mu) average + mu policy, in place. Both have the same length; `mu` is from 0 (frozen) to 1 (the policy itself). */
export function emaInto(average: Float32Array, policy: Float32Array, mu: number): void {
  if (average.length !== policy.length) {
    throw new RangeError(`average of ${average.length} elements, policy of ${policy.length}: expected the same length`);
  }
  if (!(mu >= 0 && mu <= 1)) throw new RangeError(`mu should be a number from 0 to 1, got ${mu}`);
  for (let i = 0; i < average.length; i++) average[i] = average[i]! + mu * (policy[i]! - average[i]!);
}

/** (1 - mu) average + mu policy, as a new array. */
export function ema(average: Float32Array, policy: Float32Array, mu: number): Float32Array {
  const next = average.slice();
  emaInto(next, policy, mu);
  return next;
}
