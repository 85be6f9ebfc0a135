// Adapters in PEFT's format (LoRA, arXiv 2106.09685) as sources of a merge.
import type { FileTensor } from "safetensors-ts";
import type { Source } from "./plan.js";

export interface Adapter {
  /** Path of the folder. */
  readonly path: string;
  /** Path of the file that holds the tensors. */
  readonly file: string;
  /** What is added, by the name of the weight of the model: scale B A. */
  readonly updates: ReadonlyMap<string, { readonly a: FileTensor; readonly b: FileTensor; readonly scale: number }>;
  /** Tensors that take the place of the model's, by its names. */
  readonly replaced: ReadonlyMap<string, FileTensor>;
}

/** Reads and checks adapter_config.json and the header of adapter_model.safetensors. */
export async function openAdapter(path: string): Promise<Adapter> {
  throw new Error(`not yet: ${path}`);
}

/** A tensor of the model with the adapter on it. `fileIndex` is that of `adapter.file` in the plan's files. */
export function withAdapter(
  source: Source,
  name: string,
  shape: readonly number[],
  adapter: Adapter,
  fileIndex: number,
): Source {
  throw new Error(`not yet: ${source.kind} ${name} ${shape} ${adapter.path} ${fileIndex}`);
}

/** Throws unless the model has a tensor for each of the adapter's. */
export function checkAdapterFits(adapter: Adapter, model: string, names: ReadonlySet<string>): void {
  throw new Error(`not yet: ${adapter.path} ${model} ${names.size}`);
}

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
