// The election of signs of TIES (arXiv 2306.01708, section 3.2), for a block of elements.
import { BLOCK_ELEMENTS } from "../selection.js";
import { kernelsFor, scratchDoubles } from "../simd/arena.js";

/** Added to a sum of weights, which it changes only where that is 0. */
const TINY = 1e-300;

/**
 * Votes for each element of a block. The sum of those of one sign is (size + or - sum) / 2, and that of their weights
 * (weight + or - balance) / 2: additions without branches, which random signs would make slow.
 */
export interface Ballot {
  /** Sum of the votes, and of their absolute values. */
  readonly sum: Float64Array;
  readonly size: Float64Array;
  /** Sum of the weights of votes that are not zero, and of them with the signs of their votes. */
  readonly weight: Float64Array;
  readonly balance: Float64Array;
}

export const newBallot = (elements = BLOCK_ELEMENTS): Ballot => ({
  sum: scratchDoubles(elements),
  size: scratchDoubles(elements),
  weight: scratchDoubles(elements),
  balance: scratchDoubles(elements),
});

export function clearBallot({ sum, size, weight, balance }: Ballot): void {
  sum.fill(0);
  size.fill(0);
  weight.fill(0);
  balance.fill(0);
}

/** Adds the votes scale * values of a model, which weigh `weight` each. */
export function addVotes(
  { sum, size, weight: weights, balance }: Ballot,
  values: Float32Array,
  count: number,
  scale: number,
  weight: number,
): void {
  const kernels = kernelsFor(values, sum, size, weights, balance);
  const whole = kernels === undefined ? 0 : count - (count % 2);
  const [sums, sizes, weighed, balances] = [sum.byteOffset, size.byteOffset, weights.byteOffset, balance.byteOffset];
  kernels?.addVotes(values.byteOffset, whole, scale, weight, sums, sizes, weighed, balances);
  for (let i = whole; i < count; i++) {
    const vote = scale * values[i]!;
    sum[i]! += vote;
    size[i]! += Math.abs(vote);
    if (values[i] === 0) continue;
    weights[i]! += weight;
    balance[i]! += Math.sign(vote) * weight;
  }
}

/**
 * out_i = base_i + lambda * the sum of the votes whose sign is that of the `majority` (0 counts as positive), for `count`
 * elements from `start` on. With `normalize` the sum is divided by that of their weights, where it is not zero.
 */
export function electInto(
  out: Float32Array,
  base: Float32Array,
  start: number,
  count: number,
  ballot: Ballot,
  majority: Float64Array,
  lambda: number,
  normalize: boolean,
): void {
  const { sum, size, weight, balance } = ballot;
  const kernels = kernelsFor(out, base, majority, sum, size, weight, balance);
  const whole = kernels === undefined ? 0 : count - (count % 2);
  kernels?.elect(
    base.byteOffset + 4 * start,
    majority.byteOffset,
    sum.byteOffset,
    size.byteOffset,
    weight.byteOffset,
    balance.byteOffset,
    whole,
    lambda,
    normalize,
    TINY,
    out.byteOffset + 4 * start,
  );
  for (let i = whole; i < count; i++) {
    const side = majority[i]! >= 0 ? 0.5 : -0.5;
    const elected = lambda * (0.5 * sum[i]! + side * size[i]!);
    // Without votes this is 0 / TINY.
    const total = normalize ? 0.5 * weight[i]! + side * balance[i]! + TINY : 1;
    out[start + i] = base[start + i]! + elected / total;
  }
}
