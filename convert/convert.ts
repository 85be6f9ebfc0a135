// `heddle convert`: what a model is stored as, changed; what it computes, kept.
import { stat } from "node:fs/promises";
import { checkOutput } from "../merge/options.js";
import type { Dtype } from "../model/json.js";
import { convertFolder } from "./convert-folder.js";
import { convertGguf } from "./convert-gguf.js";

export interface ConvertOptions {
  /** A .gguf file, or a Hugging Face model folder. */
  readonly from: string;
  /** Folder to write. It appears, or is replaced, when it is whole. */
  readonly out: string;
  /** What the weights are rounded to (to nearest even). @default bfloat16 for a GGUF file, what each tensor is for a folder */
  readonly dtype?: Dtype;
  /** Most bytes of weights in one file. */
  readonly shardSize: number;
  /** Whether `out` may be a model that is already there. @default false */
  readonly overwrite?: boolean;
  /** Bytes of weights written, and of all of them. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** On failure, or an abort by `signal`, `out` is what it was. */
export async function convertModel({ overwrite, dtype, ...options }: ConvertOptions): Promise<void> {
  await checkOutput(options.out, [options.from], overwrite);
  const isFolder = (await stat(options.from)).isDirectory();
  if (isFolder) await convertFolder({ ...options, dtype: dtype ?? null });
  else await convertGguf({ ...options, dtype: dtype ?? "bfloat16" });
}
