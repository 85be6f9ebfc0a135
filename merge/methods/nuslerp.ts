import { defineMethod, type Part } from "../method.js";
import { arcWeights } from "../slerp.js";
import { productsOfRow, weightsFromBase } from "./weighted.js";

/** Weights whose sum is closer to zero than this share equally. */
const MIN_SUM = 1e-6;

/**
 * SLERP of two models, or of their task vectors where there is a base: then it is the SLERP of WARP (arXiv 2406.16768), for
 * two models and an angle per tensor. t = weight_2 / (weight_1 + weight_2) of the way from the first to the second.
 *
 * One angle for a tensor (`nuslerp_flatten`), for each row (neither), or for each position along the first axis, which of a
 * matrix are its columns (`nuslerp_row_wise`: mergekit's name). A tensor of one axis has one angle in any case.
 * A vector that is zero counts as perpendicular; parallel and opposite ones are interpolated on the line.
 */
export const nuslerp = defineMethod({
  description: "SLERP of two models, or of their task vectors with a base (NuSLERP; WARP, arXiv 2406.16768)",
  base: "optional",
  minModels: 2,
  maxModels: 2,
  global: {
    nuslerp_flatten: { type: "boolean", default: true, description: "one angle for a tensor" },
    nuslerp_row_wise: {
      type: "boolean",
      default: false,
      description: "unless flattened: one for each column, not row",
    },
  },
  model: {
    weight: { type: "number", description: "share of the model" },
  },
  passes: [
    {
      isNeeded: (_known, { global }) => global.nuslerp_flatten || global.nuslerp_row_wise,
      products: ({ global }) => (global.nuslerp_flatten ? "task vectors" : null),
      measure: measureColumns,
      conclude: (sums, { models }) => arcsOf(sums, shareOf(models)),
    },
  ],
  needsRows: true,
  weights({ global }, [weights], hasBase) {
    if (!global.nuslerp_flatten) return null;
    return hasBase ? weightsFromBase(weights!) : weights!;
  },
  combine(part, { global, models }, [weights], out) {
    if (global.nuslerp_row_wise) combineColumns(part, weights!, out);
    else combineRows(part, shareOf(models), out);
  },
});

function shareOf([first, second]: readonly { weight: number }[]): number {
  const sum = first!.weight + second!.weight;
  return Math.abs(sum) < MIN_SUM ? 0.5 : second!.weight / sum;
}

/** Weights of the two vectors from their products: aa, ab, ba, bb of one pair after the other. */
function arcsOf(products: ArrayLike<number>, share: number): number[] {
  const weights = new Array<number>(products.length / 2);
  for (let p = 0; p < products.length; p += 4) {
    const lengths = Math.sqrt(products[p]! * products[p + 3]!);
    const angle = lengths > 0 ? Math.acos(Math.min(1, Math.max(-1, products[p + 1]! / lengths))) : Math.PI / 2;
    [weights[p / 2], weights[p / 2 + 1]] = arcWeights(angle, share);
  }
  return weights;
}

/** Positions along the first axis: elements of one of its entries. */
const columnsOf = ({ shape, elements }: Part): number => elements / (shape[0] ?? 1);

function measureColumns(part: Part): Float64Array {
  const columns = columnsOf(part);
  const { base, models, start } = part;
  const [first, second] = models;
  const sums = new Float64Array(4 * columns);
  let column = start % columns;
  for (let i = 0; i < first!.length; i++) {
    const origin = base ? base[i]! : 0;
    const a = first![i]! - origin;
    const b = second![i]! - origin;
    sums[4 * column]! += a * a;
    sums[4 * column + 1]! += a * b;
    sums[4 * column + 3]! += b * b;
    if (++column === columns) column = 0;
  }
  return sums;
}

function combineColumns(part: Part, weights: readonly number[], out: Float32Array): void {
  const columns = columnsOf(part);
  let column = part.start % columns;
  for (let i = 0; i < out.length; i++) {
    combineElement(part, i, weights[2 * column]!, weights[2 * column + 1]!, out);
    if (++column === columns) column = 0;
  }
}

function combineRows(part: Part, share: number, out: Float32Array): void {
  for (let start = 0; start < out.length; start += part.columns) {
    const end = start + part.columns;
    const [first, second] = arcsOf(productsOfRow(part, start, end).flat(), share);
    for (let i = start; i < end; i++) combineElement(part, i, first!, second!, out);
  }
}

function combineElement({ base, models }: Part, i: number, first: number, second: number, out: Float32Array): void {
  const origin = base ? base[i]! : 0;
  out[i] = (1 - first - second) * origin + first * models[0]![i]! + second * models[1]![i]!;
}
