// How a tensor is cut into parts: by its shape alone, so that results do not depend on threads or on what was resumed.

/** Elements of a part: 1 MB of float32 a source, which stays in a core's cache. A whole number of SIMD vectors. */
export const PART_ELEMENTS = 2 ** 18;

/** Consecutive elements of a tensor. They are whole rows, unless one row alone is longer than a part and may be cut. */
export interface PartRange {
  /** Which part of the tensor, from 0, and how many there are. */
  readonly index: number;
  readonly parts: number;
  /** Index of the first element, and how many there are. */
  readonly start: number;
  readonly length: number;
  /** Elements of a row: the size of the last axis; a tensor of one axis is one row, a scalar one row of one. */
  readonly columns: number;
  /** Elements of the whole tensor. */
  readonly elements: number;
}

/** The parts of a tensor, in order; none for a tensor without elements. */
export function cutParts(
  shape: readonly number[],
  needsRows: boolean,
  partElements: number = PART_ELEMENTS,
): PartRange[] {
  const columns = shape.at(-1) ?? 1;
  const elements = shape.reduce((product, size) => product * size, 1);
  if (elements === 0) return [];
  const isCut = columns > partElements && !needsRows;
  const length = isCut ? partElements : Math.max(1, Math.floor(partElements / columns)) * columns;
  const parts = Math.ceil(elements / length);
  return Array.from({ length: parts }, (_, index) => {
    const start = index * length;
    return { index, parts, start, length: Math.min(length, elements - start), columns, elements };
  });
}
