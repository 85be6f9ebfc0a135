// Adapters as sources of a merge.
import type { FileTensor } from "safetensors-ts";
import type { Adapter } from "../model/adapter.js";
import type { Source, TensorPlace } from "./plan.js";

/** A tensor of the model with an adapter on it that fits the model. `fileIndex` is that of `adapter.file` in the plan's files. */
export function withAdapter(source: Source, name: string, { updates, replaced }: Adapter, fileIndex: number): Source {
  const placeOf = ({ position, dtype, shape }: FileTensor): TensorPlace => ({
    file: fileIndex,
    position,
    dtype,
    shape,
  });
  const whole = replaced.get(name);
  const update = updates.get(name);
  const of: Source = whole ? { kind: "tensor", place: placeOf(whole) } : source;
  if (!update) return of;
  const { a, b, scale } = update;
  return { kind: "lora", of, a: placeOf(a), b: placeOf(b), scale };
}

/**
 * out += scale B A, for rows `firstRow` and on of B: `out` holds whole rows of `columns`, A is [rank, columns], B [rows, rank].
 * Sums are float64, rounded once.
 */
export function addLoraRows(
  out: Float32Array,
  firstRow: number,
  a: Float32Array,
  b: Float32Array,
  columns: number,
  rank: number,
  scale: number,
): void {
  const sum = new Float64Array(columns);
  for (let start = 0, row = firstRow; start < out.length; start += columns, row++) {
    for (let i = 0; i < columns; i++) sum[i] = out[start + i]!;
    let r = 0;
    // Four rows of A at a time: the sums are then read and written a quarter as often.
    for (; r + 4 <= rank; r += 4) {
      const at = row * rank + r;
      const [w0, w1, w2, w3] = [scale * b[at]!, scale * b[at + 1]!, scale * b[at + 2]!, scale * b[at + 3]!];
      const a0 = r * columns;
      const [a1, a2, a3] = [a0 + columns, a0 + 2 * columns, a0 + 3 * columns];
      for (let i = 0; i < columns; i++) {
        sum[i]! += w0 * a[a0 + i]! + w1 * a[a1 + i]! + (w2 * a[a2 + i]! + w3 * a[a3 + i]!);
      }
    }
    for (; r < rank; r++) {
      const weight = scale * b[row * rank + r]!;
      for (let i = 0; i < columns; i++) sum[i]! += weight * a[r * columns + i]!;
    }
    for (let i = 0; i < columns; i++) out[start + i] = sum[i]!;
  }
}
