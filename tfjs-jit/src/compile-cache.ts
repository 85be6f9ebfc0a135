// XLA's compiled programs on disk: a second process with the same programs and shapes compiles nothing.
//
// TensorFlow does it (tf_xla_persistent_cache_directory): it writes each program beside its place and renames it. What it
// does not do: it fails a compilation whose result it cannot write or whose entry it cannot read, so the folder is
// checked before and mended after; and it never deletes, so that is done here. Each version, device and processor has a
// folder of its own, which each use marks: others of the same user may be in use, those that have long not been are not.

import { createHash } from "node:crypto";
import { accessSync, constants, mkdirSync, readdirSync, rmSync, statfsSync, statSync, utimesSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { processorFlags } from "./processor.js";
import { cacheFolder } from "./setup-cache.js";
import { type Device, tensorflowVersion } from "./setup-wheels.js";

/** Above this size the programs that were written first are deleted. */
const MOST_BYTES = 2 * 2 ** 30;
/** With less room on its disk the folder is not used. */
const LEAST_ROOM = 2 ** 30;
/** A folder that no process has used for so long is deleted. */
const LONGEST_UNUSED_MS = 60 * 24 * 60 * 60 * 1000;

let folder: string | null = null;

/**
 * Before TensorFlow loads. HEDDLE_COMPILE_CACHE names another folder, or with 0 leaves it off; so do a folder that cannot
 * be written and a full disk.
 */
export function useCompileCache(device: Device): void {
  const wish = process.env.HEDDLE_COMPILE_CACHE;
  if (wish === "0") return;
  const path = wish ? resolve(wish) : join(cacheFolder(), `programs-${tensorflowVersion}-${device}-${targetName()}`);
  // TensorFlow splits its flags at blanks.
  if (/\s/.test(path)) return;
  try {
    mkdirSync(path, { recursive: true });
    accessSync(path, constants.W_OK);
    const { bavail, bsize } = statfsSync(path);
    if (bavail * bsize < LEAST_ROOM) return;
    deleteOldest(path, MOST_BYTES);
  } catch {
    return;
  }
  if (!wish) tidy(path);
  folder = path;
  const flag = `--tf_xla_persistent_cache_directory=${path}`;
  process.env.TF_XLA_FLAGS = [process.env.TF_XLA_FLAGS, flag].filter(Boolean).join(" ");
}

/** How many programs the folder holds; null without one. */
export function programsOnDisk(): number | null {
  if (folder === null) return null;
  try {
    return readdirSync(folder).length;
  } catch {
    return null; // deleted meanwhile
  }
}

/** Whether a failed execution may be tried again, because it failed at a damaged entry: then all entries are deleted. */
export function mendCompileCache(error: unknown): boolean {
  if (folder === null || !/Read less bytes than requested|Serialized cache key/.test(String(error))) return false;
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { force: true });
  return true;
}

/** Programs are compiled for the instructions that a processor has, as XLA's flags say. */
function targetName(): string {
  const target = `${processorFlags() || process.arch} ${process.env.XLA_FLAGS ?? ""}`;
  return createHash("sha256").update(target).digest("hex").slice(0, 12);
}

/** Deletes files of a folder, those that were written first, until the others have no more than `most` bytes. */
export function deleteOldest(path: string, most: number): void {
  const entries = readdirSync(path).flatMap((name) => {
    const stat = statSync(join(path, name), { throwIfNoEntry: false });
    return stat === undefined ? [] : [{ file: join(path, name), bytes: stat.size, written: stat.mtimeMs }];
  });
  let bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  for (const { file, bytes: own } of entries.sort((a, b) => a.written - b.written)) {
    if (bytes <= most) return;
    rmSync(file, { force: true });
    bytes -= own;
  }
}

/** Marks a folder as used, and deletes those beside it that have long not been. */
function tidy(used: string): void {
  const now = new Date();
  try {
    utimesSync(used, now, now);
    for (const name of readdirSync(dirname(used)).filter((one) => one.startsWith("programs-"))) {
      const path = join(dirname(used), name);
      const usedMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
      if (usedMs < now.getTime() - LONGEST_UNUSED_MS) rmSync(path, { recursive: true, force: true });
    }
  } catch {
    // Another user's, or another process does the same.
  }
}
