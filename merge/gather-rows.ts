// Rows of an embedding that are put together from rows of others, for a vocabulary that is none of theirs.
import { BITS, toFloat32 } from "safetensors-ts";
import type { Files } from "./evaluate.js";
import type { RowsSource } from "./plan.js";

/** Rows that are read at a time for the mean of all. */
const CHUNK_ROWS = 1024;

/**
 * Fills `out` with the rows from `firstRow` on, of `columns` elements each. A row is the mean of those picked for it, zeros
 * where none is; neighbours that are neighbours in a model, too, are read together.
 */
export function gatherRows(
  files: Files,
  source: RowsSource,
  columns: number,
  firstRow: number,
  out: Float32Array,
): void {
  const { picks, tensors, rows, meanFrom = picks.length - 1 } = source;
  out.fill(0);
  const endRow = firstRow + out.length / columns;
  const isSingle = (row: number) => picks[row + 1]! - picks[row]! === 1;
  for (let row = firstRow; row < endRow; ) {
    const target = (row - firstRow) * columns;
    const first = picks[row]!;
    let count = 1;
    if (row >= meanFrom) {
      out.set(meanRow(files, source, columns, meanFrom), target);
    } else if (isSingle(row)) {
      const follows = (k: number) => tensors[first + k] === tensors[first] && rows[first + k] === rows[first]! + k;
      while (row + count < Math.min(endRow, meanFrom) && isSingle(row + count) && follows(count)) count++;
      out.set(readRows(files, source, columns, first, count), target);
    } else {
      const owners = picks[row + 1]! - first;
      const sum = new Float64Array(columns);
      for (let k = 0; k < owners; k++) addInto(sum, readRows(files, source, columns, first + k, 1));
      for (let i = 0; i < columns; i++) out[target + i] = sum[i]! / Math.max(1, owners);
    }
    row += count;
  }
}

/** Number of the file that makes a row none of finite numbers: that of the first such row picked for it. */
export function brokenFile(files: Files, source: RowsSource, columns: number, row: number): number {
  const { places, picks, tensors, meanFrom = picks.length - 1 } = source;
  const [from, to] = row < meanFrom ? [picks[row]!, picks[row + 1]!] : [0, tensors.length];
  let pick = from;
  while (pick < to - 1 && readRows(files, source, columns, pick, 1).every(Number.isFinite)) pick++;
  return places[tensors[pick]!]!.file;
}

function readRows(
  files: Files,
  { places, tensors, rows }: RowsSource,
  columns: number,
  pick: number,
  count: number,
): Float32Array {
  const from = places[tensors[pick]!]!;
  const size = BITS[from.dtype] / 8;
  const raw = new Uint8Array(count * columns * size);
  files.read(from.file, from.position + rows[pick]! * columns * size, raw);
  return toFloat32(raw, from.dtype);
}

const means = new WeakMap<RowsSource, Float64Array>();

/** The mean of rows 0 to `count`, as they are after gathering. Each thread reads them once. */
function meanRow(files: Files, source: RowsSource, columns: number, count: number): Float64Array {
  const known = means.get(source);
  if (known) return known;
  const sum = new Float64Array(columns);
  const chunk = new Float32Array(CHUNK_ROWS * columns);
  for (let row = 0; row < count; row += CHUNK_ROWS) {
    const part = chunk.subarray(0, Math.min(CHUNK_ROWS, count - row) * columns);
    gatherRows(files, source, columns, row, part);
    for (let start = 0; start < part.length; start += columns) addInto(sum, part.subarray(start, start + columns));
  }
  const mean = sum.map((x) => x / count);
  means.set(source, mean);
  return mean;
}

function addInto(sum: Float64Array, values: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
}
