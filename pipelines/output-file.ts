/** Files of rows that a command writes: streamed, and whole or not there at all. */
import { closeSync, fsyncSync, openSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/**
 * Writes a file piece by piece to a temporary sibling (`NAME.PID.tmp`), which takes the file's name when `fill` has
 * ended. If that throws the file is what it was before.
 */
export async function writeStreamed(
  path: string,
  fill: (write: (text: string) => void) => Promise<void>,
): Promise<void> {
  removeLeftovers(path);
  const temporary = `${path}.${process.pid}.tmp`;
  const file = openSync(temporary, "w");
  try {
    try {
      await fill((text) => writeFileSync(file, text));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
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
