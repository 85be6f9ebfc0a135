// Adapters in PEFT's format as sources of a merge.

/**
 * out += scale B A, for rows `firstRow` and on of B: `out` holds whole rows of `columns`, A is [rank, columns], B [rows, rank].
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
    sum.fill(0);
    for (let r = 0; r < rank; r++) {
      const weight = scale * b[row * rank + r]!;
      for (let i = 0; i < columns; i++) sum[i]! += weight * a[r * columns + i]!;
    }
    for (let i = 0; i < columns; i++) out[start + i] = out[start + i]! + sum[i]!;
  }
}
