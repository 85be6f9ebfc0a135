// The per-user cache: whole folders, each made elsewhere and renamed into place, so that none is ever half there.

import { existsSync, readFileSync, statSync } from "node:fs";
import { mkdir, rename, statfs, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { SetupError } from "./setup-error.js";
import { withLock, withTemporaryFolder } from "./setup-lock.js";

/** HEDDLE_CACHE, else heddle/ in XDG_CACHE_HOME, else ~/.cache/heddle. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.HEDDLE_CACHE) return resolve(env.HEDDLE_CACHE);
  // The XDG specification has relative paths ignored.
  const base =
    env.XDG_CACHE_HOME && isAbsolute(env.XDG_CACHE_HOME) ? env.XDG_CACHE_HOME : join(env.HOME || homedir(), ".cache");
  return join(base, "heddle");
}

/** about.json of a cache folder: what it holds, and the bytes of each file, by which a damaged one is told. */
export type Contents = { readonly about: Record<string, string>; readonly files: Record<string, number> };

/** What a folder of the cache holds; undefined when it is missing or a file of it is missing or cut. */
export function readFolder(folder: string): Record<string, string> | undefined {
  const path = join(folder, "about.json");
  if (!existsSync(path)) return undefined;
  try {
    const { about, files } = JSON.parse(readFileSync(path, "utf8")) as Contents;
    const whole = Object.entries(files).every(([file, bytes]) => statSync(join(folder, file)).size === bytes);
    return whole ? about : undefined;
  } catch {
    return undefined;
  }
}

/** Fills a new folder, and says what is in it. */
export type Make = (folder: string) => Promise<Contents>;

export type EnsureOptions = { log: (line: string) => void; signal: AbortSignal | undefined };

/** Makes `cache`/`name` unless it is there, whole. Returns whether it had to be made by this call. */
export async function ensureFolder(cache: string, name: string, make: Make, options: EnsureOptions): Promise<boolean> {
  const target = join(cache, name);
  if (readFolder(target)) return false;
  await mkdir(cache, { recursive: true });
  const lock = {
    signal: options.signal,
    onWait: (pid: string) => options.log(`waiting for another set-up (process ${pid})`),
  };
  return withLock(`${target}.lock`, lock, async () => {
    if (readFolder(target)) return false;
    await withTemporaryFolder(cache, async (temporary) => {
      const folder = join(temporary, name);
      await mkdir(folder);
      await writeFile(join(folder, "about.json"), JSON.stringify(await make(folder), null, 1));
      await publish(folder, target);
    });
    return true;
  });
}

/** Puts a made folder in place. A whole one that came there meanwhile stays; a damaged one makes way. */
async function publish(folder: string, target: string): Promise<void> {
  try {
    await rename(folder, target);
  } catch (error) {
    if (!["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    if (readFolder(target)) return;
    await rename(target, `${folder}.damaged`);
    await rename(folder, target);
  }
}

/** Throws unless the disk under `folder` has room. */
export async function checkRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < bytes) throw noRoom(folder, `${formatBytes(bytes)} needed, ${formatBytes(bavail * bsize)} free`);
}

export const noRoom = (folder: string, detail: string): SetupError =>
  new SetupError(
    `no room on the disk of ${folder}: ${detail}. Free some, or set HEDDLE_CACHE to a folder on another disk, then run npm run setup again.`,
  );

/** 274 MB, 3.4 GB: decimal units, as pip prints them. */
export const formatBytes = (bytes: number): string =>
  bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(Math.ceil(bytes / 1e8) / 10).toFixed(1)} GB`;
