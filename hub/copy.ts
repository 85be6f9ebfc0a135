/** A model out of the cache, as plain files. */
import { constants, copyFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { needingRoom } from "../model/disk.js";
import { replaceFolder } from "../model/save.js";

/** Copies the files of a snapshot into `out`, whole or not at all. What `out` was is replaced if it was a model. */
export async function copyModel(snapshot: string, out: string, signal?: AbortSignal): Promise<void> {
  const entries = await readdir(snapshot, { withFileTypes: true });
  const names = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(snapshot, name))).size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  const copy = async (partial: string) => {
    for (const name of names) {
      signal?.throwIfAborted();
      await copyFile(join(snapshot, name), join(partial, name), constants.COPYFILE_FICLONE);
    }
  };
  await needingRoom(out, bytes, () => replaceFolder(out, copy));
}
