import { defineMethod, type Known, type ParameterSpecs, type Part, type SettingsOf } from "../method.js";
import { BLOCK_ELEMENTS, cutsOf, keepAbove, type Selection, selectionPasses, startCut } from "../selection.js";
import { addVotes, clearBallot, electedVote, newBallot } from "./consensus.js";

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
    const majority = new Float64Array(BLOCK_ELEMENTS);
    const base = part.base!;
    forSelected(part, settings, known, (start, count, models) => {
      clearBallot(ballot);
      majority.fill(0);
      for (const [m, { values, bits }] of models.entries()) {
        addVotes(ballot, values, bits, count, weights[m]!, weights[m]!);
        for (let i = 0; i < count; i++) majority[i]! += values[i]!;
      }
      for (let i = 0; i < count; i++) out[start + i] = base[start + i]! + electedVote(ballot, i, majority[i]!, true);
    });
  },
});

/** The next elements of a model's task vector: float32 values and the same as bits. Zeros are positive. */
interface Delta {
  readonly values: Float32Array;
  readonly bits: Int32Array;
}

const newDeltas = ({ models }: Part): readonly Delta[] =>
  models.map(() => {
    const values = new Float32Array(BLOCK_ELEMENTS);
    return { values, bits: new Int32Array(values.buffer) };
  });

function fillDeltas(deltas: readonly Delta[], { base, models }: Part, start: number, count: number): void {
  const from = base!;
  for (const [m, { values }] of deltas.entries()) {
    const model = models[m]!;
    // -0 + 0 is 0: a zero has no sign.
    for (let i = 0; i < count; i++) values[i] = model[start + i]! - from[start + i]! + 0;
  }
}

/** Population variance of the task vectors at each element; exactly 0 where they are equal. */
function variances(deltas: readonly Delta[], count: number, scores: Float32Array): void {
  if (deltas.length === 2) {
    const [first, second] = [deltas[0]!.values, deltas[1]!.values];
    for (let i = 0; i < count; i++) {
      const half = (first[i]! - second[i]!) / 2;
      scores[i] = half * half;
    }
    return;
  }
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let m = 0; m < deltas.length; m++) sum += deltas[m]!.values[i]!;
    const mean = sum / deltas.length;
    let squares = 0;
    for (let m = 0; m < deltas.length; m++) squares += (deltas[m]!.values[i]! - mean) ** 2;
    scores[i] = squares / deltas.length;
  }
}

/** Calls `look` with each block of the models' task vectors, zero where an element is not selected. */
function forSelected(
  part: Part,
  settings: SceSettings,
  known: Known,
  look: (start: number, count: number, deltas: readonly Delta[]) => void,
): void {
  const deltas = newDeltas(part);
  const scores = new Float32Array(BLOCK_ELEMENTS);
  const selected = new Int32Array(scores.buffer);
  const cutting = byVariance.isNeeded(settings) ? startCut(cutsOf(known)[0]!, part.index) : null;
  for (let start = 0; start < part.length; start += BLOCK_ELEMENTS) {
    const count = Math.min(BLOCK_ELEMENTS, part.length - start);
    fillDeltas(deltas, part, start, count);
    if (cutting) {
      variances(deltas, count, scores);
      keepAbove(selected, count, cutting);
      // What is selected has a positive score, so that the sign of its negative is all ones.
      for (const { bits } of deltas) for (let i = 0; i < count; i++) bits[i] = bits[i]! & (-selected[i]! >> 31);
    }
    look(start, count, deltas);
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
