// One set-up at a time on a cache folder, and what a killed one left is cleared away.
//
// Locks only save work: every result is published by one rename, so two set-ups that both believe to hold a lock do
// the work twice and nothing breaks.

import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { lstat, mkdir, readdir, readlink, rename, rm, symlink, unlink } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A process on another machine that shares this cache cannot be asked whether it lives: it is believed for so long. */
const otherMachineMs = 60 * 60_000;
const pollMs = 100;

let counter = 0;

/** A pid means something only on one machine and in one pid namespace (a container). */
function machine(): string {
  const namespace = readlinkSync("/proc/self/ns/pid");
  return createHash("sha256").update(`${hostname()} ${namespace}`).digest("hex").slice(0, 12);
}

/** When a process began, in ticks since boot (field 22 of proc(5) stat): pids are used again. undefined when it is gone. */
function startTime(pid: string): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Names a piece of work of this process, so that another process can tell whether it is still going on. */
const newOwner = (): string => `${machine()}-${process.pid}-${startTime("self")}-${counter++}`;

/** Whether the process behind an owner's name is alive; `ageMs` is how long ago it took what it owns. */
function isAlive(owner: string, ageMs: number): boolean {
  const [where, pid, start] = owner.split("-");
  if (where !== machine()) return ageMs < otherMachineMs;
  return startTime(pid!) === start;
}

/** Runs work in a new folder under `cache`/tmp, on the cache's own disk so that results can be renamed out of it. */
export async function withTemporaryFolder<T>(cache: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(cache, "tmp", newOwner());
  await mkdir(folder, { recursive: true });
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Removes the temporary folders of set-ups that were killed. */
export async function clearLeftovers(cache: string): Promise<void> {
  const tmp = join(cache, "tmp");
  for (const owner of await readdir(tmp).catch(() => [])) {
    const age = await ageMs(join(tmp, owner));
    if (age !== undefined && !isAlive(owner, age))
      await rm(join(tmp, owner), { recursive: true, force: true, maxRetries: 3 });
  }
}

/**
 * Runs work while holding a lock; waits for another holder, and takes over from a dead one. `onWait` is told the
 * other's process id once. The lock is a symbolic link that points to its owner's name: made and read in one step.
 */
export async function withLock<T>(
  lock: string,
  options: { onWait: (pid: string) => void; signal: AbortSignal | undefined },
  work: () => Promise<T>,
): Promise<T> {
  const owner = newOwner();
  for (let waited = false; !(await take(lock, owner)); ) {
    const holder = await readlink(lock).catch(() => undefined);
    const age = await ageMs(lock);
    if (holder === undefined || age === undefined) continue;
    if (!isAlive(holder, age)) {
      await breakLock(lock, owner);
      continue;
    }
    if (!waited) options.onWait(holder.split("-")[1]!);
    waited = true;
    await sleep(pollMs, undefined, { signal: options.signal });
  }
  try {
    return await work();
  } finally {
    if ((await readlink(lock).catch(() => undefined)) === owner) await unlink(lock);
  }
}

async function take(lock: string, owner: string): Promise<boolean> {
  try {
    await symlink(owner, lock);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Renames the lock away first, so that of two set-ups that see it dead only one unlinks it. */
async function breakLock(lock: string, owner: string): Promise<void> {
  const aside = `${lock}.${owner}`;
  try {
    await rename(lock, aside);
    await unlink(aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

const ageMs = async (path: string): Promise<number | undefined> => {
  const stats = await lstat(path).catch(() => undefined);
  return stats && Date.now() - stats.mtimeMs;
};
