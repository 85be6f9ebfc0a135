// Merges checkpoint folders into a checkpoint folder, in parts: memory holds megabytes, never a model or a tensor.
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { byteLength } from "safetensors-ts";
import { needingRoom } from "../model/disk.js";
import { replaceFolder } from "../model/save.js";
import { checkUnchanged, identityOf } from "./identity.js";
import type { Plan } from "./plan.js";
import type { Stored } from "./run-plan.js";
import { type StoreOptions, storePlan } from "./store.js";

/** How a merge is run, whatever is merged. */
export interface RunOptions extends Partial<Omit<StoreOptions, "identity">> {
  /** Folder to write. It appears, or is replaced, when it is whole. */
  readonly out: string;
}

/** Most bytes of one file where none are said, as in huggingface_hub. */
const SHARD_SIZE = 5_000_000_000;
/** A merge that writes less than this is done before threads would have started. */
const SMALL_BYTES = 2 ** 23;

/** A thread a core, the one that asks among them. */
export const standardWorkers = (): number => availableParallelism();

/**
 * Writes a model folder: the plan's tensors, and what `writeFiles` puts beside them once these are stored.
 * On failure `out` is what it was. After a kill, or an abort by `signal`, `resume: true` goes on with the same plan.
 */
export async function mergeInto(
  plan: Plan,
  {
    out,
    geometry = false,
    resume = false,
    isDurable = existsSync(out),
    shardSize = SHARD_SIZE,
    workers,
    threads = [],
    onProgress = () => {},
    signal,
  }: RunOptions,
  writeFiles: (folder: string, lines: readonly Stored[]) => Promise<void>,
): Promise<void> {
  const bytes = plan.tensors.reduce((sum, tensor) => sum + byteLength(tensor), 0);
  const identity = await identityOf(plan, shardSize);
  const write = async (partial: string) => {
    const lines = await storePlan(partial, plan, {
      shardSize,
      workers: workers ?? (bytes < SMALL_BYTES ? 1 : standardWorkers()),
      threads,
      resume,
      isDurable,
      geometry,
      identity,
      onProgress,
      signal,
    });
    await checkUnchanged(plan, shardSize, identity);
    await writeFiles(partial, lines);
  };
  await needingRoom(out, bytes, () =>
    replaceFolder(out, write, { resume, isKeptAfter: () => resume || signal?.aborted === true }),
  );
}
