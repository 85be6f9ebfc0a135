/** Files of rows that a command writes: streamed, and whole or not there at all. */
import { readdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { openReplacement } from "./files.js";

/** Writes a file piece by piece; it is there when `fill` has ended. If that throws the file is what it was before. */
export async function writeStreamed(
  path: string,
  fill: (write: (text: string) => void) => Promise<void>,
): Promise<void> {
  removeLeftovers(path);
  const file = openReplacement(path);
  try {
    await fill(file.write);
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
