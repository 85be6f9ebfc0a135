/** Files that are whole at every instant: a reader, or a run that starts after a kill, sees the old one or the new one. */
import { closeSync, fsyncSync, openSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** A file under way beside the one that it will replace. */
export type Replacement = {
  write(data: string | Uint8Array): void;
  /** Flushes it to the disk and gives it the name of the other. */
  commit(): void;
  /** Must be called in the end. What was not committed is removed. */
  close(): void;
};

/**
 * Begins the file that will replace `path`, as a temporary sibling.
 * A kill may leave the sibling (`NAME.PID.tmp`) behind, never half a file under the name itself.
 */
export function openReplacement(path: string): Replacement {
  const temporary = `${path}.${process.pid}.tmp`;
  const file = openSync(temporary, "w");
  return {
    write: (data) => writeFileSync(file, data),
    commit: () => {
      fsyncSync(file);
      renameSync(temporary, path);
      flushFolder(dirname(path));
    },
    close: () => {
      closeSync(file);
      rmSync(temporary, { force: true });
    },
  };
}

/** Replaces a file in one step. */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  const file = openReplacement(path);
  try {
    file.write(data);
    file.commit();
  } finally {
    file.close();
  }
}

/** Removes the temporary siblings of a file whose processes were killed. */
export function removeLeftovers(path: string): void {
  for (const name of readdirSync(dirname(path))) {
    const isSibling = name.startsWith(`${basename(path)}.`);
    const pid = isSibling ? /^\.(\d+)\.tmp$/.exec(name.slice(basename(path).length))?.[1] : undefined;
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(dirname(path), name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** After a power cut a rename is on the disk only once its folder was flushed. */
function flushFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
