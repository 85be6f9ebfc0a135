// Keeping elements of a task vector by their magnitude, exactly: TIES keeps the largest, breadcrumbs what is next to them.
import type { Part, Values } from "../method.js";
import { cutsOf, dropAbove, keepAbove, type Selection, selectionPasses, startCut } from "../selection.js";
import { taskVectorInto } from "../task-vectors.js";
import type { modelParameters, SparseSettings, Sparsifier } from "./sparse-task-arithmetic.js";

type ModelValues = Values<typeof modelParameters>;

/** Ranks by magnitude, from 1 for the largest: those above `first` and up to `last` are kept. Density is above 0 and below 1. */
export type Ranks<V extends ModelValues> = (
  elements: number,
  values: V,
) => { readonly first: number; readonly last: number };

/** Of equal magnitudes those of lower index come first. */
export function byMagnitude<V extends ModelValues>(ranks: Ranks<V>): Sparsifier<V> {
  const selection: Selection<SparseSettings<V>> = {
    isNeeded: ({ models }) => models.some(({ density }) => density > 0 && density < 1),
    sources: ({ models }) => models.length,
    scorer: magnitudes,
    ranks(model, elements, _positives, { models }) {
      const { first, last } = ranks(elements, models[model]!);
      return [first, last];
    },
  };
  return {
    passes: selectionPasses(selection),
    keeper(part, model, _settings, known) {
      const cuts = cutsOf(known);
      const first = startCut(cuts[2 * model]!, part.index);
      const last = startCut(cuts[2 * model + 1]!, part.index);
      return ({ bits, count }) => {
        keepAbove(bits, count, last);
        dropAbove(bits, count, first);
      };
    },
  };
}

function magnitudes(part: Part, model: number): (start: number, count: number, scores: Float32Array) => void {
  const base = part.base!;
  const weights = part.models[model]!;
  return (start, count, scores) => taskVectorInto(scores, weights, base, start, count);
}
