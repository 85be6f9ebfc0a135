/** Means of measured numbers, and how sure they are. */

/** NaN of nothing. */
export const mean = (numbers: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < numbers.length; i++) sum += numbers[i]!;
  return sum / numbers.length;
};

/** Standard error of the mean of independent numbers. */
export function standardError(numbers: ArrayLike<number>): number {
  const m = mean(numbers);
  const squares = Float64Array.from(numbers, (x) => (x - m) ** 2);
  return Math.sqrt(mean(squares) / (numbers.length - 1));
}
