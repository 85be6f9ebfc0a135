/** A model of the hub as a folder: from the cache, or downloaded into it. */
import { mkdir, readFile, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type PQueue from "p-queue";
import { INDEX_NAME } from "safetensors-ts";
import { megabytes } from "../model/disk.js";
import { isFile } from "../model/json.js";
import { blobPath, findCached, linkBlob, repoFolder, snapshotFolder, writeRef } from "./cache.js";
import { downloadFile, partialPath, type RemoteFile } from "./download.js";
import { HubError, HubUnavailableError } from "./errors.js";
import { isConfig, isSmallModelFile, weightFiles } from "./files.js";
import { isCommit, type ModelName } from "./name.js";
import { type Fetch, hubFetch, type RequestOptions } from "./request.js";
import { type HubSettings, hubSettings } from "./settings.js";

export interface PullOptions extends RequestOptions {
  /** @default those of the environment */
  readonly settings?: HubSettings;
  /** Told before and while weights come: how many of their bytes are here, and how many there are. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Told what the user should know though the model was found. */
  readonly onNote?: (text: string) => void;
}

const CONCURRENT_FILES = 4;

/**
 * The snapshot folder of a model or adapter. What the cache has is not fetched again; where the hub does not answer, or
 * refuses, what the cache has will do.
 *
 * @throws HubError, HubUnavailableError
 */
export async function pullModel(name: ModelName, options: PullOptions = {}): Promise<string> {
  const { settings = hubSettings(), onNote } = options;
  const cached = await findCached(settings, name);
  if (cached !== null && (settings.isOffline || (isCommit(name.revision ?? "") && (await isWhole(cached)))))
    return cached;
  if (settings.isOffline) {
    const { repo, revision } = name;
    const what = revision === null ? repo : `${repo}@${revision}`;
    throw new HubError(`${what}: is not in the cache (${settings.cache}), and HF_HUB_OFFLINE forbids to ask the hub`);
  }
  try {
    // With something to fall back on nobody waits long.
    const fetch = await hubFetch(settings, name, cached === null ? options : { ...options, retries: 1 });
    return await pullFrom(await askCommit(name, settings, fetch), name, { ...options, settings }, fetch);
  } catch (error) {
    const isHubs = error instanceof HubError || error instanceof HubUnavailableError;
    // A file that is wrong is no answer of the hub's.
    if (cached === null || !isHubs || (error instanceof HubError && error.status === undefined)) throw error;
    onNote?.(`${error.message}; taken from the cache: ${cached}`);
    return cached;
  }
}

/** Another program may have fetched config and weights of a commit alone. */
const isWhole = async (snapshot: string): Promise<boolean> =>
  (await isFile(join(snapshot, "tokenizer.json"))) || !(await isFile(join(snapshot, "config.json")));

/** The commit that a branch or tag is at. */
async function askCommit(name: ModelName, { endpoint }: HubSettings, fetch: Fetch): Promise<string> {
  const { modelInfo } = await import("@huggingface/hub");
  const { repo, revision } = name;
  const params = {
    name: repo,
    revision: revision ?? "main",
    hubUrl: endpoint,
    additionalFields: ["sha" as const],
    fetch,
  };
  const { sha } = await modelInfo(params).catch((error: unknown) => {
    throw error instanceof SyntaxError ? new HubError(`${endpoint}: answers as no hub does: ${error.message}`) : error;
  });
  if (typeof sha === "string" && isCommit(sha)) return sha;
  throw new HubError(`${endpoint}: answers as no hub does: the commit of ${repo} is ${JSON.stringify(sha)}`);
}

async function pullFrom(
  commit: string,
  name: ModelName,
  options: PullOptions & { readonly settings: HubSettings },
  fetch: Fetch,
): Promise<string> {
  const { settings } = options;
  const folder = repoFolder(settings, name.repo);
  const snapshot = snapshotFolder(folder, commit);
  const files = await listFiles(name.repo, commit, settings, fetch);
  const names = [...files.keys()];
  if (!names.some(isConfig)) {
    // Weights in another format often come alone: their message says more.
    weightFiles(name.repo, names, null);
    throw new HubError(`${name.repo}: has no config.json and no adapter_config.json: it is no model of transformers`);
  }
  const small = names.filter(isSmallModelFile).map((file) => files.get(file)!);
  const index = files.has(INDEX_NAME) ? INDEX_NAME : null;
  if (index === null) weightFiles(name.repo, names, null);

  await mkdir(join(folder, "blobs"), { recursive: true });
  const download = await downloader(commit, name, folder, options);
  await download(small, () => {});
  const text = index === null ? null : await readFile(join(snapshot, index), "utf8");
  const weights = weightFiles(name.repo, names, text).map((file) => files.get(file)!);
  const total = weights.reduce((sum, { size }) => sum + size, 0);
  const missing = await missingBytes(folder, weights);
  await checkSpace(name.repo, folder, missing);
  let done = total - missing;
  if (missing > 0) options.onProgress?.(done, total);
  await download(weights, (count) => {
    done += count;
    options.onProgress?.(done, total);
  });
  await writeRef(folder, name, commit);
  return snapshot;
}

/** The files at the root of a repository, by name. */
async function listFiles(
  repo: string,
  revision: string,
  { endpoint }: HubSettings,
  fetch: Fetch,
): Promise<Map<string, RemoteFile>> {
  const { listFiles } = await import("@huggingface/hub");
  const files = new Map<string, RemoteFile>();
  for await (const { type, path, size, oid, lfs } of listFiles({ repo, revision, hubUrl: endpoint, fetch })) {
    // A name that leads out of its folder is nobody's model.
    if (type !== "file" || !/^[^/\\]*[^/\\.][^/\\]*$/.test(path)) continue;
    const file = { name: path, size: lfs?.size ?? size, oid: lfs?.oid ?? oid ?? "", isLarge: lfs !== undefined };
    if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(file.oid)) {
      throw new HubError(
        `${endpoint}: answers as no hub does: ${repo} has ${path} with hash ${JSON.stringify(file.oid)}`,
      );
    }
    files.set(path, file);
  }
  return files;
}

type Download = (files: readonly RemoteFile[], onBytes: (count: number) => void) => Promise<void>;

/** Downloads what the cache has not, some files at once, and links it into the snapshot. The first failure stops the others. */
async function downloader(
  commit: string,
  name: ModelName,
  folder: string,
  options: PullOptions & { readonly settings: HubSettings },
): Promise<Download> {
  const { settings, signal, firstWaitMs } = options;
  const { default: Queue } = (await import("p-queue")) as { default: typeof PQueue };
  return async (files, onBytes) => {
    const failed = new AbortController();
    const either = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
    const fetch = await hubFetch(settings, name, { signal: either, firstWaitMs, retries: 0 });
    const queue = new Queue({ concurrency: CONCURRENT_FILES });
    const one = async ([file, ...others]: readonly [RemoteFile, ...RemoteFile[]]) => {
      const path = blobPath(folder, file.oid);
      if ((await stat(path).catch(() => null))?.size !== file.size) {
        const url = `${settings.endpoint}/${name.repo}/resolve/${commit}/${encodeURIComponent(file.name)}`;
        await downloadFile(file, path, { repo: name.repo, url, fetch, signal: either, firstWaitMs, onBytes });
      }
      for (const { name, oid } of [file, ...others]) await linkBlob(folder, commit, name, oid);
    };
    const all = byContent(files).map((same) => queue.add(() => one(same)));
    try {
      await Promise.all(all);
    } catch (error) {
      failed.abort(error);
      queue.clear();
      await queue.onIdle();
      throw error;
    }
  };
}

/** Files of the same content are one blob. */
function byContent(files: readonly RemoteFile[]): [RemoteFile, ...RemoteFile[]][] {
  const groups = new Map<string, [RemoteFile, ...RemoteFile[]]>();
  for (const file of files) {
    const group = groups.get(file.oid);
    if (group === undefined) groups.set(file.oid, [file]);
    else group.push(file);
  }
  return [...groups.values()];
}

/** Bytes of the files that are yet to come. */
async function missingBytes(folder: string, files: readonly RemoteFile[]): Promise<number> {
  const sizeOf = (path: string) =>
    stat(path).then(
      ({ size }) => size,
      () => 0,
    );
  const missing = byContent(files).map(async ([{ oid, size }]) => {
    const path = blobPath(folder, oid);
    if ((await sizeOf(path)) === size) return 0;
    const partial = await sizeOf(partialPath(path));
    return partial > size ? size : size - partial;
  });
  return (await Promise.all(missing)).reduce((sum, count) => sum + count, 0);
}

/** @throws HubError where the disk of the cache has less room than what is yet to come */
async function checkSpace(repo: string, folder: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (needed <= bavail * bsize) return;
  throw new HubError(
    `${repo}: needs ${megabytes(needed)}, and the disk of ${folder} has ${megabytes(bavail * bsize)}: free some, or set ` +
      "HF_HUB_CACHE to a folder on another disk",
  );
}
