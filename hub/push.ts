/** A model folder onto the hub, as one commit. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { INDEX_NAME } from "safetensors-ts";
import { HubError } from "./errors.js";
import { isConfig, isDocument, isSmallModelFile, weightFiles } from "./files.js";
import { isRevision, type ModelName, modelName } from "./name.js";
import { type Fetch, hubFetch, type RequestOptions } from "./request.js";
import { type HubSettings, hubSettings } from "./settings.js";

export interface PushOptions extends RequestOptions {
  /** @default those of the environment */
  readonly settings?: HubSettings;
  /** Whether a new repository is private. */
  readonly private: boolean;
  /** Branch. */
  readonly revision: string;
  /** Title of the commit. */
  readonly message: string;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Uploads a folder that is a model or an adapter, and returns the address of its page. Repository and branch are made
 * where there are none. Files of the repository that the folder has not are left there.
 *
 * @throws HubError where the folder is no model, or the hub refuses
 */
export async function pushModel(dir: string, to: string, options: PushOptions): Promise<string> {
  const { settings = hubSettings(), revision, message, signal, onProgress } = options;
  const name: ModelName = { ...modelName(to), revision };
  if (to.includes("@")) throw new HubError(`${to}: expected org/name, and the branch in --revision`);
  if (!isRevision(revision)) throw new HubError(`expected the name of a branch, got ${JSON.stringify(revision)}`);
  const files = await filesOf(dir);
  if (settings.isOffline) throw new HubError(`${to}: HF_HUB_OFFLINE forbids to ask the hub`);
  if (settings.token === null) throw new HubError(`${to}: to upload, set HF_TOKEN to a token that may write`);

  const sent = new Map(files.map(({ name }) => [name, 0]));
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const note = (file: string, bytes: number) => {
    sent.set(file, bytes);
    onProgress?.(
      [...sent.values()].reduce((sum, count) => sum + count, 0),
      total,
    );
  };
  const fetch = await hubFetch(settings, name, options);
  const { commitIter, HubApiError } = await import("@huggingface/hub");
  await makeRepository(name, options.private, settings, fetch);
  onProgress?.(0, total);
  const events = commitIter({
    repo: name.repo,
    branch: revision,
    title: message,
    operations: files.map(({ name, path }) => ({ operation: "addOrUpdate", path: name, content: pathToFileURL(path) })),
    hubUrl: settings.endpoint,
    fetch: counting(fetch, (file, bytes) => note(file, Math.min(sizeOf(files, file), sent.get(file)! + bytes))),
    ...(signal && { abortSignal: signal }),
  });
  try {
    for await (const event of events) {
      if (event.event !== "fileProgress" || event.state !== "uploading") continue;
      note(event.path, Math.max(sent.get(event.path) ?? 0, Math.round(event.progress * sizeOf(files, event.path))));
    }
  } catch (error) {
    if (!(error instanceof HubApiError)) throw error;
    throw new HubError(`${to}: ${error.message}`, error.statusCode, { cause: error });
  }
  onProgress?.(total, total);
  return `${settings.endpoint}/${name.repo}${revision === "main" ? "" : `/tree/${revision}`}`;
}

interface LocalFile {
  readonly name: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
}

const sizeOf = (files: readonly LocalFile[], name: string): number =>
  files.find((file) => file.name === name)?.size ?? 0;

/** The files of a model folder that belong on the hub. @throws HubError where it is no model */
async function filesOf(dir: string): Promise<LocalFile[]> {
  const names = (await readdir(dir)).sort();
  if (!names.some(isConfig)) {
    throw new HubError(`${dir}: has no config.json and no adapter_config.json, expected a model or adapter folder`);
  }
  const index = names.includes(INDEX_NAME) ? await readFile(join(dir, INDEX_NAME), "utf8") : null;
  const weights = new Set(weightFiles(dir, names, index));
  const belongs = (name: string) => weights.has(name) || isSmallModelFile(name) || isDocument(name);
  const files = names.filter((name) => !name.startsWith(".") && belongs(name));
  return Promise.all(
    files.map(async (name) => {
      const path = resolve(dir, name);
      return { name, path, size: (await stat(path)).size };
    }),
  );
}

/** Makes repository and branch where there are none. */
async function makeRepository(name: ModelName, isPrivate: boolean, settings: HubSettings, fetch: Fetch): Promise<void> {
  const { createBranch, createRepo, modelInfo } = await import("@huggingface/hub");
  const { endpoint: hubUrl } = settings;
  const { repo } = name;
  const found = await modelInfo({ name: repo, hubUrl, fetch }).catch(unless([401, 404]));
  if (found === null) {
    // The token is put in by `fetch`; with the library's own only tokens of huggingface.co are accepted.
    const access = { accessToken: "", hubUrl, fetch };
    await createRepo({ repo, ...access, ...(isPrivate && { visibility: "private" as const }) }).catch(unless([409]));
  } else if (isPrivate && !found.private) {
    throw new HubError(
      `${repo}: is public, and --private makes new repositories private: change it at ${hubUrl}/${repo}/settings`,
    );
  }
  const { revision } = name;
  if (revision !== null && revision !== "main") {
    await createBranch({ repo, branch: revision, hubUrl, fetch }).catch(unless([409]));
  }
}

/** Null in the place of an error with one of the statuses. */
const unless =
  (statuses: readonly number[]) =>
  (error: unknown): null => {
    if (error instanceof HubError && error.status !== undefined && statuses.includes(error.status)) return null;
    throw error;
  };

/** The library tells of an upload when it has ended. Counted is what leaves, file by file. */
function counting(fetch: Fetch, onBytes: (file: string, bytes: number) => void): Fetch {
  return (input, init) => {
    const { body, progressHint } = { ...init } as { body?: unknown; progressHint?: { path?: string } };
    const file = progressHint?.path;
    if (!(body instanceof Blob) || file === undefined) return fetch(input, init);
    const { size } = body;
    const stream = body.stream.bind(body);
    body.stream = () => stream().pipeThrough(counter((bytes) => onBytes(file, bytes))) as ReturnType<Blob["stream"]>;
    return fetch(input, {
      ...init,
      headers: { ...(init?.headers as Record<string, string>), "content-length": `${size}` },
    });
  };
}

const counter = (onBytes: (count: number) => void) =>
  new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, controller) => {
      onBytes(chunk.length);
      controller.enqueue(chunk);
    },
  });
