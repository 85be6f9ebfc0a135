import { defineMethod, type Known, type ParameterSpecs, type Part, type SettingsOf } from "../method.js";
import { BLOCK_ELEMENTS, cutsOf, keepAbove, type Selection, selectionPasses, startCut } from "../selection.js";
import { scratchDoubles, scratchFloats } from "../simd/arena.js";
import { taskVectorInto } from "../task-vectors.js";
import { addVotes, clearBallot, electInto, newBallot } from "./consensus.js";

const global = {
  select_topk: {
    type: "number",
    default: 1,
    min: 0,
    max: 1,
    description: "share of the elements that differ between models to change: those that differ most",
  },
  int8_mask: { type: "boolean", default: false, description: "without effect: no masks are stored here" },
} as const satisfies ParameterSpecs;

type SceSettings = SettingsOf<typeof global, Record<never, never>>;

/** Selects floor(select_topk * number of elements of any variance), those of the largest variance across task vectors. */
const byVariance: Selection<SceSettings> = {
  isNeeded: (settings) => settings.global.select_topk < 1,
  sources: () => 1,
  scorer(part) {
    const deltas = newDeltas(part);
    return (start, count, scores) => {
      fillDeltas(deltas, part, start, count);
      variances(deltas, count, scores);
    };
  },
  ranks: (_source, _elements, positives, settings) => [Math.floor(settings.global.select_topk * positives)],
};

const selection = selectionPasses(byVariance);

/**
 * SCE (FuseChat, arXiv 2408.07990): Select the elements whose task vectors vary most across models, Calculate the weight of
 * each model as its share of the selected elements' squares, Erase what has not the sign of the sum of the task vectors.
 *
 *     base + sum over agreeing m of weight_m d_m / sum over agreeing m of weight_m,    weight_m = |d_m|^2 / sum of |d|^2
 *
 * Where all selected elements are zero, the base is kept. Of equal variances those of lower index are selected.
 */
export const sce = defineMethod({
  description: "selects what varies most, weighs models by its squares, elects signs (SCE, arXiv 2408.07990)",
  base: "required",
  global,
  model: {},
  passes: [...selection, { measure: measureSquares, conclude: shares }],
  combine(part, settings, known, out) {
    const weights = known[selection.length]!;
    const ballot = newBallot();
    const majority = scratchDoubles(BLOCK_ELEMENTS);
    const base = part.base!;
    forSelected(part, settings, known, (start, count, models) => {
      clearBallot(ballot);
      majority.fill(0);
      for (const [m, { values }] of models.entries()) {
        addVotes(ballot, values, count, weights[m]!, weights[m]!);
        addInto(majority, values, count);
      }
      electInto(out, base, start, count, ballot, majority, 1, true);
    });
  },
});

/** A block of a model's task vector: float32 values and the same as bits. Zeros are positive. */
interface Delta {
  readonly values: Float32Array;
  readonly bits: Int32Array;
}

/** A block of the task vectors, and room for sums over them. */
interface Deltas {
  readonly models: readonly Delta[];
  readonly mean: Float64Array;
  readonly squares: Float64Array;
}

const newDeltas = ({ models }: Part): Deltas => ({
  models: models.map(() => {
    const values = scratchFloats(BLOCK_ELEMENTS);
    return { values, bits: new Int32Array(values.buffer, values.byteOffset, values.length) };
  }),
  mean: new Float64Array(BLOCK_ELEMENTS),
  squares: new Float64Array(BLOCK_ELEMENTS),
});

function fillDeltas({ models }: Deltas, part: Part, start: number, count: number): void {
  for (const [m, { values }] of models.entries()) taskVectorInto(values, part.models[m]!, part.base!, start, count);
}

/** Population variance of the task vectors at each element; exactly 0 where they are equal. */
function variances({ models, mean, squares }: Deltas, count: number, scores: Float32Array): void {
  mean.fill(0);
  squares.fill(0);
  for (const { values } of models) addInto(mean, values, count);
  for (let i = 0; i < count; i++) mean[i] = mean[i]! / models.length;
  for (const { values } of models) addSquares(squares, values, mean, count);
  for (let i = 0; i < count; i++) scores[i] = squares[i]! / models.length;
}

function addInto(sum: Float64Array, values: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) sum[i] = sum[i]! + values[i]!;
}

function addSquares(squares: Float64Array, values: Float32Array, mean: Float64Array, count: number): void {
  for (let i = 0; i < count; i++) {
    const difference = values[i]! - mean[i]!;
    squares[i] = squares[i]! + difference * difference;
  }
}

/** What is selected has a positive score, so that the sign of its negative is all ones. */
function keepSelected(bits: Int32Array, selected: Int32Array, count: number): void {
  for (let i = 0; i < count; i++) bits[i] = bits[i]! & ((0 - selected[i]!) >> 31);
}

/** Calls `look` with each block of the models' task vectors, zero where an element is not selected. */
function forSelected(
  part: Part,
  settings: SceSettings,
  known: Known,
  look: (start: number, count: number, deltas: readonly Delta[]) => void,
): void {
  const deltas = newDeltas(part);
  const scores = scratchFloats(BLOCK_ELEMENTS);
  const selected = new Int32Array(scores.buffer, scores.byteOffset, scores.length);
  const cutting = byVariance.isNeeded(settings) ? startCut(cutsOf(known)[0]!, part.index) : null;
  for (let start = 0; start < part.length; start += BLOCK_ELEMENTS) {
    const count = Math.min(BLOCK_ELEMENTS, part.length - start);
    fillDeltas(deltas, part, start, count);
    if (cutting) {
      variances(deltas, count, scores);
      keepAbove(selected, count, cutting);
      for (const { bits } of deltas.models) keepSelected(bits, selected, count);
    }
    look(start, count, deltas.models);
  }
}

/** Sums of the squares of each model's selected elements. */
function measureSquares(part: Part, settings: SceSettings, known: Known): Float64Array {
  const sums = new Float64Array(part.models.length);
  forSelected(part, settings, known, (_start, count, models) => {
    for (const [m, { values }] of models.entries()) {
      let sum = 0;
      for (let i = 0; i < count; i++) sum += values[i]! * values[i]!;
      sums[m]! += sum;
    }
  });
  return sums;
}

function shares(squares: Float64Array): number[] {
  const sum = squares.reduce((total, square) => total + square, 0);
  return Array.from(squares, (square) => (sum > 0 ? square / sum : 0));
}
