// How the work on a tensor is handed out: in batches of parts, one a job.
import { METHODS } from "./methods.js";
import { cutParts, type PartRange } from "./parts.js";
import type { OutputTensor, Source } from "./plan.js";

/** A batch to store holds about so many elements: handing it out costs little then, and the last one is soon done. */
const STORED_ELEMENTS = 2 ** 21;
/** A batch to measure holds more, since its sums are given away, and those of histograms are large. */
const MEASURED_ELEMENTS = 2 ** 22;
/** No more sums than this are given away of a tensor. */
const MAX_SUMS = 64;

/** The parts of an output tensor, the same for all passes and for what is stored. */
export const partsOf = ({ shape, source }: OutputTensor): PartRange[] => cutParts(shape, needsRows(source));

/** Batches of parts to store. */
export const batchesToStore = (tensor: OutputTensor): PartRange[][] => batches(partsOf(tensor), STORED_ELEMENTS);

/** Batches of parts to measure. */
export function batchesToMeasure(tensor: OutputTensor): PartRange[][] {
  const parts = partsOf(tensor);
  const { elements } = parts[0]!;
  return batches(parts, Math.max(MEASURED_ELEMENTS, elements / MAX_SUMS));
}

function batches(parts: readonly PartRange[], elements: number): PartRange[][] {
  const size = Math.ceil(elements / Math.max(1, parts[0]!.length));
  return Array.from({ length: Math.ceil(parts.length / size) }, (_, i) => parts.slice(i * size, (i + 1) * size));
}

/** Whether parts must be whole rows: for a method that looks at rows, and where rows are gathered or computed. */
function needsRows(source: Source | null): boolean {
  if (source?.kind !== "merge") return source?.kind === "rows" || source?.kind === "lora";
  return METHODS[source.method].needsRows === true || [source.base, ...source.models].some(needsRows);
}
