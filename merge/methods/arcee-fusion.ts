import { defineMethod, type Known, type Part, type Settings } from "../method.js";
import { BLOCK_ELEMENTS, cutsOf, type Selection, scoreOf, selectionPasses } from "../selection.js";

/** Added to probabilities, so that none is zero. */
const MIN_PROBABILITY = 1e-8;
/** Importances are taken over from this many interquartile ranges above the median. */
const RANGES = 1.5;
const QUARTILES = [0.25, 0.5, 0.75] as const;

/** The quartiles of the importances, as ranks from the largest. */
const byImportance: Selection<Settings> = {
  isNeeded: () => true,
  sources: () => 1,
  scorer: (part) => {
    const divergences = rowDivergences(part);
    return (start, count, scores) => importances(part, divergences, start, count, scores);
  },
  ranks: (_source, elements) => QUARTILES.map((quartile) => elements - Math.floor(quartile * (elements - 1))),
};

/** Equal importances are all of one side, so the third pass of a selection is of no use. */
const passes = selectionPasses(byImportance).slice(0, 2);

/**
 * Arcee Fusion: takes over the elements of the model whose importance is at least median + 1.5 interquartile ranges, where
 *
 *     importance = |model - base| * KL(softmax(model row) || softmax(base row)),
 *
 * and keeps the base elsewhere. The quartiles are those of all elements of the tensor: element floor(q (n - 1)) in order.
 */
export const arceeFusion = defineMethod({
  description: "takes over the model's most important changes alone (Arcee Fusion, arcee.ai)",
  base: "required",
  maxModels: 1,
  global: {},
  model: {},
  passes,
  needsRows: true,
  combine(part, _settings, known, out) {
    const base = part.base!;
    const model = part.models[0]!;
    const threshold = thresholdOf(known);
    const divergences = rowDivergences(part);
    const scores = new Float32Array(BLOCK_ELEMENTS);
    for (let start = 0; start < part.length; start += BLOCK_ELEMENTS) {
      const count = Math.min(BLOCK_ELEMENTS, part.length - start);
      importances(part, divergences, start, count, scores);
      for (let i = 0; i < count; i++) out[start + i] = scores[i]! >= threshold ? model[start + i]! : base[start + i]!;
    }
  },
});

function thresholdOf(known: Known): number {
  const [lower, median, upper] = cutsOf(known).map(scoreOf);
  return median! + RANGES * (upper! - lower!);
}

function importances(
  { base, models, columns }: Part,
  divergences: Float64Array,
  start: number,
  count: number,
  scores: Float32Array,
): void {
  const from = base!;
  const to = models[0]!;
  for (let i = 0; i < count; i++) {
    const at = start + i;
    scores[i] = Math.fround(Math.abs(to[at]! - from[at]!)) * divergences[Math.floor(at / columns)]!;
  }
}

/** KL(softmax(model) || softmax(base)) in nats of each row of the part. */
function rowDivergences({ base, models, columns, length }: Part): Float64Array {
  const from = base!;
  const to = models[0]!;
  const divergences = new Float64Array(Math.ceil(length / columns));
  for (let row = 0; row < divergences.length; row++) {
    const start = row * columns;
    const end = start + columns;
    const p = softmaxOf(to, start, end);
    const q = softmaxOf(from, start, end);
    let sum = 0;
    for (let i = start; i < end; i++) {
      const pi = Math.exp(to[i]! - p.largest) / p.sum + MIN_PROBABILITY;
      const qi = Math.exp(from[i]! - q.largest) / q.sum + MIN_PROBABILITY;
      sum += pi * Math.log(pi / qi);
    }
    // Never negative but for rounding.
    divergences[row] = Math.max(0, sum);
  }
  return divergences;
}

/** softmax(x)_i = exp(x_i - largest) / sum. */
function softmaxOf(
  values: Float32Array,
  start: number,
  end: number,
): { readonly largest: number; readonly sum: number } {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = start; i < end; i++) largest = Math.max(largest, values[i]!);
  let sum = 0;
  for (let i = start; i < end; i++) sum += Math.exp(values[i]! - largest);
  return { largest, sum };
}
