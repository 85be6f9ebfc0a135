// How a tensor is cut, so that memory holds a part of each source and never a tensor.

/** Where a part is in its tensor. */
export interface PartRange {
  /** Which part of the tensor this is, from 0, and how many there are. */
  readonly index: number;
  readonly parts: number;
  /** Index of the first element within the tensor; that of element i is `start + i`. */
  readonly start: number;
  /** Elements of the part. */
  readonly length: number;
  /** Sizes of the whole tensor's axes. */
  readonly shape: readonly number[];
  /** Elements of a row: the size of the last axis. A tensor of one axis is one row, a scalar one row of one. */
  readonly columns: number;
  /** Elements of the whole tensor. */
  readonly elements: number;
}

/** Large enough that work outweighs bookkeeping, small enough that a few sources fit into a processor's cache. */
export const PART_ELEMENTS = 2 ** 19;

/**
 * Parts of about `partElements` elements, in order. They hold whole rows: at least one each, so a part is longer where a row
 * is, unless the method does not need rows and long ones may be cut. A tensor without elements is one empty part.
 */
export function cutParts(shape: readonly number[], needsRows: boolean, partElements = PART_ELEMENTS): PartRange[] {
  const elements = shape.reduce((product, size) => product * size, 1);
  const columns = Math.max(1, shape.at(-1) ?? 1);
  const isRowCut = !needsRows && columns > partElements;
  const step = isRowCut ? partElements : columns * Math.max(1, Math.floor(partElements / columns));
  const parts = elements > 0 ? Math.ceil(elements / step) : 1;
  return Array.from({ length: parts }, (_, index) => {
    const start = index * step;
    return { index, parts, start, length: Math.min(step, elements - start), shape, columns, elements };
  });
}
