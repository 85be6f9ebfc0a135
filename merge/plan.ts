// The work of a merge as plain data, which can be sent to threads: what every output tensor is made of.
import type { Dtype } from "safetensors-ts";
import type { Settings } from "./method.js";
import type { MethodName } from "./methods.js";

/** Where the bytes of a tensor are: `file` is an index into `Plan.files`, `position` counts bytes from its start. */
export interface TensorPlace {
  readonly file: number;
  readonly position: number;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** Elements that go into a merge; all sources of a tensor have its shape. */
export type Source = TensorSource | RowsSource | LoraSource | MergeSource;

/** A tensor of a file as it is. */
export interface TensorSource {
  readonly kind: "tensor";
  readonly place: TensorPlace;
}

/**
 * Rows gathered from tensors of the same width. Output row r is the mean of picks[r]..picks[r + 1] (none: zeros), where
 * pick k is row `rows[k]` of tensor `tensors[k]`.
 */
export interface RowsSource {
  readonly kind: "rows";
  readonly places: readonly TensorPlace[];
  readonly picks: Int32Array;
  readonly tensors: Int32Array;
  readonly rows: Int32Array;
  /** Rows from this one on are the mean of all rows before it: padding of a vocabulary. @default none */
  readonly meanFrom?: number;
}

/** of + scale B A, an adapter in PEFT's convention: A is [rank, columns], B [rows, rank]. */
export interface LoraSource {
  readonly kind: "lora";
  readonly of: Source;
  readonly a: TensorPlace;
  readonly b: TensorPlace;
  readonly scale: number;
}

/** What a method makes of sources. */
export interface MergeSource {
  readonly kind: "merge";
  /** Which merge of the recipe this is: 0 for the recipe itself, above that for recipes within it, depth first. */
  readonly merge: number;
  readonly method: MethodName;
  readonly settings: Settings;
  readonly base: Source | null;
  readonly models: readonly Source[];
}

export interface OutputTensor {
  readonly name: string;
  /** What is stored. */
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly source: Source;
  /** Places whose bytes must be the same as the source's: tensors that are copied, not merged (integers, booleans). */
  readonly sameAs?: readonly TensorPlace[];
}

export interface Plan {
  /** Paths of safetensors files. */
  readonly files: readonly string[];
  /** In the order in which they fill shards. */
  readonly tensors: readonly OutputTensor[];
}
