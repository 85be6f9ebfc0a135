// Methods that are a weighted sum of their sources, with weights that come of dot products: most of them.
import type { Part } from "../method.js";
import { noProducts, type Products } from "../task-vectors.js";

/** The Gram matrix of elements `start` to `end` of the task vectors (of the models where there is no base): of one row. */
export function productsOfRow({ base, models }: Part, start: number, end: number): Products {
  const products = noProducts(models.length);
  for (const [a, x] of models.entries()) {
    for (let b = 0; b <= a; b++) {
      const y = models[b]!;
      let sum = 0;
      if (base) for (let i = start; i < end; i++) sum += (x[i]! - base[i]!) * (y[i]! - base[i]!);
      else for (let i = start; i < end; i++) sum += x[i]! * y[i]!;
      products[a]![b] = sum;
      products[b]![a] = sum;
    }
  }
  return products;
}

/** The Gram matrix that the sums are the rows of. */
export function toProducts(sums: Float64Array): Products {
  const size = Math.sqrt(sums.length);
  return Array.from({ length: size }, (_, row) => [...sums.subarray(row * size, (row + 1) * size)]);
}

/**
 * The weights of base and models in base + sum of weights[m] (models[m] - base). A single weight of 1 gives that model bit
 * for bit.
 */
export const weightsFromBase = (weights: readonly number[]): readonly number[] => [
  weights.reduce((rest, weight) => rest - weight, 1),
  ...weights,
];

/** A sum this close to zero says nothing about shares: what would be divided by it is left as it is. */
const MIN_SUM = 1e-8;

/** What to divide by so that the weights sum to 1; 1 where their sum is zero. */
export function divisorOf(weights: readonly number[]): number {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return Math.abs(sum) < MIN_SUM ? 1 : sum;
}
