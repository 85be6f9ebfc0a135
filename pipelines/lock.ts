/** One writer for one run folder: a file that names the process, and ways to tell that the process is gone. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { UserError } from "./errors.js";

interface Holder {
  pid: number;
  /** The process that started it: when that one is dead, this one is about to end. */
  parent: number;
  /** What the kernel counted when the process started (0 where it does not tell): a pid may be used again. */
  started: number;
  host: string;
}

/** A child whose parent was killed ends within a second, so a run that is started again at once waits for it. */
const orphanGraceMs = 10_000;

/** What a lock protects, and what to set to write another. */
export type Locked = { readonly what: string; readonly other: string };

/**
 * Takes the lock file, or throws a UserError that names the process which holds it.
 * A lock whose process is dead is taken over. Returns the function that gives the lock back; it is given back at exit, too.
 */
export async function takeLock(
  path: string,
  locked: Locked = { what: "this run", other: "output_dir" },
): Promise<() => void> {
  const deadline = Date.now() + orphanGraceMs;
  while (!tryTake(path)) {
    const text = readIfThere(path);
    const holder = text === undefined ? undefined : parseHolder(path, text);
    if (text === undefined || holder === undefined) continue;
    if (holder.host === hostname() && !isAlive(holder.pid, holder.started)) breakLock(path, text);
    else if (holder.host === hostname() && !isAlive(holder.parent) && Date.now() < deadline) await sleep(100);
    else throw new UserError(heldMessage(path, holder, locked));
  }
  const release = () => {
    process.off("exit", release);
    rmSync(path, { force: true });
  };
  process.on("exit", release);
  return release;
}

/** The lock appears with its content in one step: written aside, then linked, which fails when the name exists. */
function tryTake(path: string): boolean {
  const own: Holder = { pid: process.pid, parent: process.ppid, started: startTime(process.pid), host: hostname() };
  const aside = `${path}.${process.pid}.tmp`;
  writeFileSync(aside, `${JSON.stringify(own)}\n`);
  try {
    linkSync(aside, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

/** Removes a dead lock. Another process may do the same at this moment: what was moved away is looked at again. */
function breakLock(path: string, deadText: string): void {
  const aside = `${path}.${process.pid}.tmp`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if (readFileSync(aside, "utf8") !== deadText) linkSync(aside, path);
  rmSync(aside);
}

function parseHolder(path: string, text: string): Holder {
  try {
    return JSON.parse(text) as Holder;
  } catch {
    throw new UserError(`${path}: not a lock file that heddle wrote. If no heddle runs here, remove it`);
  }
}

const heldMessage = (path: string, { pid, host }: Holder, { what, other }: Locked) =>
  host === hostname()
    ? `${path}: process ${pid} is writing ${what}. Wait for it or stop it (kill ${pid}), or set another ${other}`
    : `${path}: process ${pid} on ${host} is writing ${what}. If it is no longer running, remove this file`;

/** False for a process that is gone, that has ended and was not reaped, or whose pid now belongs to another. */
function isAlive(pid: number, started?: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const now = startTime(pid);
  return now !== undead && (started === undefined || started === 0 || now === 0 || now === started);
}

const undead = -1;

/** Clock ticks from boot to the start of a process (proc(5), /proc/PID/stat, field 22); 0 where there is no /proc. */
function startTime(pid: number): number {
  const stat = readIfThere(`/proc/${pid}/stat`);
  if (stat === undefined) return 0;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? undead : Number(fields[19]);
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ESRCH") return undefined;
    throw error;
  }
}
