// What a merge of checkpoint folders is told, and the checks of it that need no weights.
import { readdir, realpath } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { ModelError } from "../model/errors.js";
import { DTYPES, type Dtype, readTextIfAny } from "../model/json.js";
import type { Granularity } from "./groups.js";

/**
 * LITI's eta from 0 (the init) to 1 (the model): one for all, or one a layer (from 0; `layers` is their number).
 * Tensors outside the layers take layer 0's, as in mergekit.
 */
export type Eta = number | ((layer: number, layers: number) => number);

/** What the weights are stored as; "input" is the init's dtype, tensor by tensor. */
export type MergeDtype = Dtype | "input";

export const MERGE_DTYPES: readonly MergeDtype[] = [...DTYPES, "input"];

export interface LitiOptions {
  /** Model folder that everything started from; its config, tokenizer and so on go into the result. */
  readonly init: string;
  /** Model folder to pull towards the init. */
  readonly model: string;
  readonly eta: Eta;
  readonly dtype: MergeDtype;
  /** Folder to write. It appears, or is replaced, when it is whole. */
  readonly out: string;
  /** Whether `out` may be a model that is already there. @default false */
  readonly overwrite?: boolean;
}

export interface MergeOptions extends Omit<LitiOptions, "model"> {
  /** Model folders trained from `init`, in the order in which they are folded. */
  readonly runs: readonly string[];
  /** What shares one angle. */
  readonly granularity: Granularity;
}

export interface EmaOptions extends Pick<LitiOptions, "dtype" | "out" | "overwrite"> {
  /** Model folders, two or more, in the order of training. */
  readonly models: readonly string[];
  /** Share of each next model, from 0 to 1. */
  readonly mu: number;
}

/** Throws for options that no weights can make right, before anything is read or written. */
export async function checkOptions({ init, runs, out, dtype, overwrite }: MergeOptions): Promise<void> {
  if (runs.length === 0) throw new RangeError("runs is empty, expected one model folder or more");
  if (!MERGE_DTYPES.includes(dtype)) {
    throw new RangeError(`dtype should be one of ${MERGE_DTYPES.join(", ")}, got "${dtype}"`);
  }
  await checkOutput(out, [init, ...runs], overwrite);
}

/** Throws where `out` is or holds an input, and where something is there and may not be replaced. */
export async function checkOutput(out: string, inputs: readonly string[], overwrite = false): Promise<void> {
  const target = await physicalPath(out);
  for (const input of inputs) {
    if (`${await physicalPath(input)}${sep}`.startsWith(`${target}${sep}`)) {
      throw new ModelError(out, `would replace ${input}, which is an input; give another folder to write`);
    }
  }
  const isTaken = (await readdir(out).catch(() => [])).length > 0;
  if (isTaken && !overwrite) {
    throw new ModelError(out, "is there already; give a new folder, or overwrite: true (--overwrite)");
  }
}

/** The text of a model folder's config.json. */
export async function readConfigText(folder: string): Promise<string> {
  const text = await readTextIfAny(join(folder, "config.json")).catch(() => null);
  if (text === null) throw new ModelError(folder, "has no config.json, expected a model folder");
  return text;
}

/** The path without symbolic links, as far as it exists. */
async function physicalPath(path: string): Promise<string> {
  const whole = resolve(path);
  if (dirname(whole) === whole) return whole;
  return realpath(whole).catch(async () => join(await physicalPath(dirname(whole)), basename(whole)));
}
