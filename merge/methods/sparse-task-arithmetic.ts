// Task arithmetic in which models keep a part of their task vector: TIES, DARE, DELLA and breadcrumbs are all made of this.
import type { Known, Method, ParameterSpecs, Part, Pass, Settings, Values } from "../method.js";
import { BLOCK_ELEMENTS } from "../selection.js";
import { scratchFloats } from "../simd/arena.js";
import { weightedSumInto } from "../simd/sums.js";
import { taskVectorInto } from "../task-vectors.js";
import { addVotes, clearBallot, electInto, newBallot } from "./consensus.js";
import { divisorOf } from "./weighted.js";

/** Parameters of each model that all these methods have. */
export const modelParameters = {
  weight: { type: "number", description: "factor of the model's task vector" },
  density: { type: "number", default: 1, min: 0, max: 1, description: "share of the task vector's elements to keep" },
} as const satisfies ParameterSpecs;

/** Parameters of the merge, which differ in what two of them are where the recipe is silent. */
export const globalParameters = (defaults: { readonly normalize: boolean; readonly rescale: boolean }) =>
  ({
    normalize: { type: "boolean", default: defaults.normalize, description: "divide by the sum of the weights" },
    rescale: { type: "boolean", default: defaults.rescale, description: "keep a task vector's L1 norm as elements go" },
    lambda: { type: "number", default: 1, description: "factor of the merged task vector" },
    int8_mask: { type: "boolean", default: false, description: "without effect: no masks are stored here" },
  }) as const satisfies ParameterSpecs;

export interface SparseSettings<V extends Values<typeof modelParameters>> extends Settings {
  readonly global: Values<ReturnType<typeof globalParameters>>;
  readonly models: readonly V[];
}

/** Consecutive elements of a task vector: float32 values, and the same as bits. Zeros are positive. */
export interface Block {
  readonly values: Float32Array;
  readonly bits: Int32Array;
  /** Index within the part of the first element, and how many there are. */
  start: number;
  count: number;
}

/** Which elements of its task vector a model keeps. */
export interface Sparsifier<V extends Values<typeof modelParameters>> {
  /** They are the first of the method. */
  readonly passes: readonly Pass<SparseSettings<V>>[];
  /** Whether blocks are whole rows. */
  readonly needsRows?: boolean;
  /** Gives a function that sets to zero what goes from a block; it gets the blocks of a part in order. Density is below 1. */
  keeper(part: Part, model: number, settings: SparseSettings<V>, known: Known): (block: Block) => void;
}

/** A sum of absolute values that is smaller says nothing: the task vector is not rescaled. */
const MIN_SUM = 1e-7;

/**
 * base + lambda * sum over m of weight_m kept_m, where kept_m is what is left of model m's task vector, times
 * sum |task vector| / sum |kept| with `rescale`. `normalize` divides by the sum of the weights (by 1 where that is 0).
 * With consensus each element takes only the summands of the sign of their sum, and only their weights (arXiv 2306.01708).
 */
export function sparseTaskArithmetic<V extends Values<typeof modelParameters>>(definition: {
  readonly description: string;
  readonly global: ReturnType<typeof globalParameters>;
  readonly model: ParameterSpecs;
  readonly sparsifier: Sparsifier<V>;
  readonly hasConsensus: boolean;
  check?(settings: SparseSettings<V>): void;
}): Method {
  const { sparsifier, hasConsensus, ...rest } = definition;
  const method: Method<SparseSettings<V>> = {
    ...rest,
    base: "required",
    passes: [
      ...sparsifier.passes,
      {
        isNeeded: (_known, { global, models }) => global.rescale && models.some(({ density }) => density < 1),
        measure: (part, settings, known) => measureNorms(sparsifier, part, settings, known),
        conclude: (sums) => Array.from({ length: sums.length / 2 }, (_, m) => ratio(sums[2 * m]!, sums[2 * m + 1]!)),
      },
    ],
    needsRows: sparsifier.needsRows === true,
    combine(part, settings, known, out) {
      const ratios = known[sparsifier.passes.length]!;
      const scales = settings.models.map(({ weight }, m) => weight * (ratios[m] ?? 1));
      if (hasConsensus) combineElected(sparsifier, part, settings, known, scales, out);
      else combineAll(sparsifier, part, settings, known, scales, out);
    },
  };
  return method;
}

const ratio = (all: number, kept: number): number => (all < MIN_SUM || kept < MIN_SUM ? 1 : all / kept);

/** Sums of the absolute values of each model's task vector and of what it keeps. */
function measureNorms<V extends Values<typeof modelParameters>>(
  sparsifier: Sparsifier<V>,
  part: Part,
  settings: SparseSettings<V>,
  known: Known,
): Float64Array {
  const sums = new Float64Array(2 * part.models.length);
  const block = newBlock(sparsifier, part);
  for (const m of part.models.keys()) {
    const keep = keeperOf(sparsifier, part, m, settings, known);
    for (let start = 0; start < part.length; start += block.values.length) {
      fillBlock(block, part, m, start);
      sums[2 * m]! += sumOfMagnitudes(block);
      keep(block);
      sums[2 * m + 1]! += sumOfMagnitudes(block);
    }
  }
  return sums;
}

/** out = base + lambda * the sum of the scaled task vectors, or their weighted mean. */
function combineAll<V extends Values<typeof modelParameters>>(
  sparsifier: Sparsifier<V>,
  part: Part,
  settings: SparseSettings<V>,
  known: Known,
  scales: readonly number[],
  out: Float32Array,
): void {
  const { lambda, normalize } = settings.global;
  const factor = lambda / (normalize ? divisorOf(settings.models.map(({ weight }) => weight)) : 1);
  const weights = [1, ...scales.map((scale) => factor * scale)];
  const blocks = part.models.map(() => newBlock(sparsifier, part));
  const keepers = part.models.map((_, m) => keeperOf(sparsifier, part, m, settings, known));
  const size = blocks[0]!.values.length;
  for (let start = 0; start < part.length; start += size) {
    const end = Math.min(part.length, start + size);
    const values = blocks.map((block, m) => {
      fillBlock(block, part, m, start);
      keepers[m]!(block);
      return block.values.subarray(0, end - start);
    });
    weightedSumInto(out.subarray(start, end), [part.base!.subarray(start, end), ...values], weights);
  }
}

/** As `combineAll`, where each element takes only those task vectors that have the sign of their sum. */
function combineElected<V extends Values<typeof modelParameters>>(
  sparsifier: Sparsifier<V>,
  part: Part,
  settings: SparseSettings<V>,
  known: Known,
  scales: readonly number[],
  out: Float32Array,
): void {
  const { lambda, normalize } = settings.global;
  const block = newBlock(sparsifier, part);
  const keepers = part.models.map((_, m) => keeperOf(sparsifier, part, m, settings, known));
  const ballot = newBallot(block.values.length);
  const base = part.base!;
  for (let start = 0; start < part.length; start += block.values.length) {
    clearBallot(ballot);
    for (const [m, keep] of keepers.entries()) {
      fillBlock(block, part, m, start);
      keep(block);
      addVotes(ballot, block.values, block.count, scales[m]!, settings.models[m]!.weight);
    }
    electInto(out, base, start, block.count, ballot, ballot.sum, lambda, normalize);
  }
}

/** Room for a block: whole rows where the sparsifier needs them. */
function newBlock({ needsRows }: { readonly needsRows?: boolean }, { columns, length }: Part): Block {
  const rows = Math.max(1, Math.floor(BLOCK_ELEMENTS / columns));
  const values = scratchFloats(Math.min(length, needsRows ? rows * columns : BLOCK_ELEMENTS));
  return { values, bits: new Int32Array(values.buffer, values.byteOffset, values.length), start: 0, count: 0 };
}

/** Fills a block with a model's task vector from element `start` of the part on. */
function fillBlock(block: Block, part: Part, model: number, start: number): void {
  const count = Math.min(block.values.length, part.length - start);
  taskVectorInto(block.values, part.models[model]!, part.base!, start, count);
  block.start = start;
  block.count = count;
}

function keeperOf<V extends Values<typeof modelParameters>>(
  sparsifier: Sparsifier<V>,
  part: Part,
  model: number,
  settings: SparseSettings<V>,
  known: Known,
): (block: Block) => void {
  const { density } = settings.models[model]!;
  if (density >= 1) return () => undefined;
  if (density <= 0) return ({ values }) => values.fill(0);
  return sparsifier.keeper(part, model, settings, known);
}

/** Four running sums: one would wait for itself. */
function sumOfMagnitudes({ values, count }: Block): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 3 < count; i += 4) {
    a += Math.abs(values[i]!);
    b += Math.abs(values[i + 1]!);
    c += Math.abs(values[i + 2]!);
    d += Math.abs(values[i + 3]!);
  }
  for (; i < count; i++) a += Math.abs(values[i]!);
  return a + b + c + d;
}
