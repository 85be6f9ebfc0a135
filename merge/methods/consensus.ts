// The election of signs of TIES (arXiv 2306.01708, section 3.2), for a block of elements.
import { BLOCK_ELEMENTS } from "../selection.js";

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
  addSums(sum, size, values, count, scale);
  addWeights(weights, balance, bits, count, weight, Math.sign(scale) * weight);
}

function addSums(sum: Float64Array, size: Float64Array, values: Float32Array, count: number, scale: number): void {
  const magnitude = Math.abs(scale);
  for (let i = 0; i < count; i++) {
    const value = values[i]!;
    sum[i] = sum[i]! + scale * value;
    size[i] = size[i]! + magnitude * Math.abs(value);
  }
}

function addWeights(
  weights: Float64Array,
  balance: Float64Array,
  bits: Int32Array,
  count: number,
  weight: number,
  signed: number,
): void {
  for (let i = 0; i < count; i++) {
    // -1, 0 or 1: the sign of a float is the sign of its bits as an integer.
    const sign = (bits[i]! >> 31) | ((0 - bits[i]!) >>> 31);
    balance[i] = balance[i]! + signed * sign;
    weights[i] = weights[i]! + weight * (sign & 1);
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
  const signs = new Int32Array(majority.buffer);
  for (let i = 0; i < count; i++) {
    // The upper half of a float64 has its sign: 1/2 or -1/2 without a branch, which would be mispredicted.
    const side = 0.5 + (signs[2 * i + 1]! >> 31);
    const elected = lambda * (0.5 * sum[i]! + side * size[i]!);
    // Without votes this is 0 / TINY.
    const total = normalize ? 0.5 * weight[i]! + side * balance[i]! + TINY : 1;
    out[start + i] = base[start + i]! + elected / total;
  }
}
