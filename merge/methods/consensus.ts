// The election of signs of TIES (arXiv 2306.01708, section 3.2), for a block of elements.
import { BLOCK_ELEMENTS } from "../selection.js";

/** Weights whose sum is closer to zero than this are not divided by. */
const MIN_WEIGHT = 1e-8;

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
  sum: new Float64Array(elements),
  size: new Float64Array(elements),
  weight: new Float64Array(elements),
  balance: new Float64Array(elements),
});

export function clearBallot({ sum, size, weight, balance }: Ballot): void {
  sum.fill(0);
  size.fill(0);
  weight.fill(0);
  balance.fill(0);
}

/** Adds the votes scale * values of a model, which weigh `weight` each. `bits` are those of `values`, in which no zero is negative. */
export function addVotes(
  { sum, size, weight: weights, balance }: Ballot,
  values: Float32Array,
  bits: Int32Array,
  count: number,
  scale: number,
  weight: number,
): void {
  const magnitude = Math.abs(scale);
  const signed = Math.sign(scale) * weight;
  for (let i = 0; i < count; i++) {
    const value = values[i]!;
    // -1, 0 or 1: the sign of a float is the sign of its bits as an integer.
    const sign = (bits[i]! >> 31) | (-bits[i]! >>> 31);
    sum[i]! += scale * value;
    size[i]! += magnitude * Math.abs(value);
    balance[i]! += signed * sign;
    weights[i]! += weight * (sign & 1);
  }
}

/**
 * The sum of the votes whose sign is that of the `majority` (0 counts as positive), divided by the sum of their weights
 * where `normalize` is set and that is not zero.
 */
export function electedVote(ballot: Ballot, i: number, majority: number, normalize: boolean): number {
  const side = majority >= 0 ? 0.5 : -0.5;
  const elected = 0.5 * ballot.sum[i]! + side * ballot.size[i]!;
  if (!normalize) return elected;
  const weight = 0.5 * ballot.weight[i]! + side * ballot.balance[i]!;
  return Math.abs(weight) < MIN_WEIGHT ? elected : elected / weight;
}
