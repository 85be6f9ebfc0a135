/**
 * The cache that transformers, vLLM and others share: models--ORG--NAME/ with blobs/ (files by their hash), snapshots/COMMIT/
 * (links to them, by name) and refs/ (the commit of a branch or tag). As Python's huggingface_hub lays it out.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, readlink, rename, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { INDEX_NAME, SINGLE_NAME } from "safetensors-ts";
import { ADAPTER_NAME } from "../model/adapter-config.js";
import { readTextIfAny } from "../model/json.js";
import { isConfig, shardsOf } from "./files.js";
import { isCommit, type ModelName } from "./name.js";
import type { HubSettings } from "./settings.js";

export const repoFolder = ({ cache }: HubSettings, repo: string): string =>
  join(cache, `models--${repo.replace("/", "--")}`);

export const snapshotFolder = (folder: string, commit: string): string => join(folder, "snapshots", commit);

export const blobPath = (folder: string, oid: string): string => join(folder, "blobs", oid);

/** The folder of a model that is whole in the cache, or null. Nothing is asked of the hub. */
export async function findCached(settings: HubSettings, { repo, revision }: ModelName): Promise<string | null> {
  const folder = repoFolder(settings, repo);
  const wanted = revision ?? "main";
  const commit = isCommit(wanted) ? wanted : (await readTextIfAny(join(folder, "refs", wanted)))?.trim();
  if (commit === undefined || !isCommit(commit)) return null;
  const snapshot = snapshotFolder(folder, commit);
  return (await isWhole(snapshot)) ? snapshot : null;
}

/** Whether config and weights are there. Weights are fetched last, so that then all the rest is there, too. */
async function isWhole(snapshot: string): Promise<boolean> {
  const names = await readdir(snapshot).catch((): string[] => []);
  if (!names.some(isConfig)) return false;
  const isThere = (name: string) =>
    stat(join(snapshot, name)).then(
      () => true,
      () => false,
    );
  if (names.includes(SINGLE_NAME)) return isThere(SINGLE_NAME);
  if (!names.includes(INDEX_NAME)) return isThere(ADAPTER_NAME);
  const index = await readFile(join(snapshot, INDEX_NAME), "utf8").catch(() => null);
  if (index === null) return false;
  return (await Promise.all(shardsOf(snapshot, index).map(isThere))).every((there) => there);
}

/** Gives a blob its name in a snapshot: a relative link, so that the cache may be moved. */
export async function linkBlob(folder: string, commit: string, name: string, oid: string): Promise<void> {
  const path = join(snapshotFolder(folder, commit), name);
  const target = relative(dirname(path), blobPath(folder, oid));
  await mkdir(dirname(path), { recursive: true });
  try {
    await symlink(target, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    if ((await readlink(path).catch(() => null)) === target) return;
    // Replaced in one step: another process may do the same.
    const replacement = `${path}.${randomUUID()}.tmp`;
    await symlink(target, replacement);
    await rename(replacement, path);
  }
}

/** Notes the commit of a branch or tag, for those who work offline. */
export async function writeRef(folder: string, { revision }: ModelName, commit: string): Promise<void> {
  const wanted = revision ?? "main";
  if (wanted === commit) return;
  const path = join(folder, "refs", wanted);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, commit);
}
