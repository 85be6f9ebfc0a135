/** A model out of the cache, as plain files. */
import { constants, copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { replaceFolder } from "../model/save.js";

/** Copies the files of a snapshot into `out`, whole or not at all. What `out` was is replaced if it was a model. */
export async function copyModel(snapshot: string, out: string, signal?: AbortSignal): Promise<void> {
  await replaceFolder(out, async (partial) => {
    for (const { name } of await readdir(snapshot, { withFileTypes: true }).then(files)) {
      signal?.throwIfAborted();
      await copyFile(join(snapshot, name), join(partial, name), constants.COPYFILE_FICLONE);
    }
  });
}

const files = <Entry extends { isDirectory(): boolean }>(entries: readonly Entry[]) =>
  entries.filter((entry) => !entry.isDirectory());
