/** One file of the hub into the cache: it goes on where an earlier process stopped, and is there only when its hash is right. */
import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { isDiskFull } from "../model/disk.js";
import { deepestMessage } from "../teacher/http-call.js";
import { HubError, HubUnavailableError } from "./errors.js";
import { type Fetch, type RequestOptions, retrying } from "./request.js";

export interface RemoteFile {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** sha256 of the content of a large file, git's sha1 of a small one; in hexadecimal digits. */
  readonly oid: string;
  readonly isLarge: boolean;
}

export interface DownloadOptions extends RequestOptions {
  /** ORG/NAME, for messages. */
  readonly repo: string;
  readonly url: string;
  /** Must not try again by itself. */
  readonly fetch: Fetch;
  /** Told of bytes that have come, which what was there before is not, and (negative) of those to fetch again. */
  readonly onBytes: (count: number) => void;
}

/** Where a file is while it comes. */
export const partialPath = (path: string): string => `${path}.incomplete`;

/** Bytes that are gathered before they are written: chunks of a connection are small. */
const WRITTEN_AT_ONCE = 1 << 20;

/** Attempts in a row that bring no byte before the download is given up. */
const RETRIES = 6;

/**
 * Downloads into `path`, by `path`.incomplete, which stays when this fails. Two processes that do the same write the
 * same bytes in the same places.
 *
 * @throws HubError where size or hash are not those of the hub: then nothing is kept
 */
export async function downloadFile(file: RemoteFile, path: string, options: DownloadOptions): Promise<void> {
  const partial = partialPath(path);
  // Made where it is missing, in one step: another process may rename it at any time.
  const handle = await open(partial, constants.O_RDWR | constants.O_CREAT);
  try {
    const state: State = { handle, done: 0, hash: newHash(file) };
    await readPartial(file, state, options);
    let before = -1;
    await retrying(
      () => {
        before = state.done;
        return fetchRest(file, state, options);
      },
      { ...options, retries: RETRIES, isFree: () => state.done > before },
    );
    const got = state.hash.digest("hex");
    if (got !== file.oid || state.done !== file.size) {
      await rm(partial, { force: true });
      throw new HubError(`${options.repo}: ${describeMismatch(file, state.done, got)}`);
    }
    await handle.truncate(file.size);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(partial, path).catch(async (error: NodeJS.ErrnoException) => {
    // Another process may have been faster.
    if (error.code !== "ENOENT" || (await stat(path).catch(() => null)) === null) throw error;
  });
}

interface State {
  readonly handle: FileHandle;
  /** Bytes that are on the disk and in the hash. */
  done: number;
  hash: Hash;
}

/** What git calls a file, or the plain hash of what it stores elsewhere (git-lfs' oid). */
function newHash({ isLarge, size }: RemoteFile): Hash {
  return isLarge ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

function describeMismatch({ name, size, oid, isLarge }: RemoteFile, done: number, got: string): string {
  const [what, is, expected] =
    done === size ? [isLarge ? "sha256" : "git's sha1", got, oid] : ["size", `${done} bytes`, `${size}`];
  return `${name}: ${what} is ${is}, expected ${expected}; nothing of it was kept: run the same command again`;
}

/** What an earlier process has left goes into the hash. */
async function readPartial(file: RemoteFile, state: State, options: DownloadOptions): Promise<void> {
  const { size } = await state.handle.stat();
  if (size > file.size) {
    await state.handle.truncate(0);
    return;
  }
  if (size === 0) return;
  // By the handle: the name may be another file's by now.
  const whole = { start: 0, end: size - 1, highWaterMark: 1 << 20, autoClose: false };
  for await (const chunk of state.handle.createReadStream(whole)) {
    options.signal?.throwIfAborted();
    take(state, chunk as Buffer);
  }
}

function take(state: State, chunk: Uint8Array): void {
  state.hash.update(chunk);
  state.done += chunk.length;
}

async function fetchRest(file: RemoteFile, state: State, options: DownloadOptions): Promise<void> {
  if (state.done === file.size) return;
  const range: Record<string, string> = state.done === 0 ? {} : { range: `bytes=${state.done}-` };
  // Compressed, its bytes could not be counted.
  const response = await options.fetch(options.url, { headers: { "accept-encoding": "identity", ...range } });
  if (state.done > 0 && rangeStart(response) !== state.done) {
    options.onBytes(-state.done);
    Object.assign(state, { done: 0, hash: newHash(file) });
  }
  if (response.body === null) throw new HubUnavailableError(`${file.name}: the answer has no body`);
  let [waiting, count]: [Uint8Array[], number] = [[], 0];
  const keep = async () => {
    const bytes = Buffer.concat(waiting);
    [waiting, count] = [[], 0];
    await write(state.handle, bytes, state.done, file, options);
    take(state, bytes);
    options.onBytes(bytes.length);
  };
  try {
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      waiting.push(chunk);
      count += chunk.length;
      if (count >= WRITTEN_AT_ONCE) await keep();
      if (state.done + count > file.size) break;
    }
    await keep();
  } catch (error) {
    if (error instanceof HubError) throw error;
    await keep();
    options.signal?.throwIfAborted();
    throw new HubUnavailableError(stopped(file, state, options, deepestMessage(error)), { cause: error });
  }
  if (state.done < file.size) throw new HubUnavailableError(stopped(file, state, options, "it ended early"));
}

const stopped = ({ name, size }: RemoteFile, { done }: State, { repo }: DownloadOptions, why: string) =>
  `${repo}: ${name} stopped at byte ${done} of ${size} (${why}): run the same command again to go on`;

/** The first byte of a part of a file; a server that knows no parts sends all of it. */
function rangeStart({ status, headers }: Response): number {
  return status === 206 ? Number(/^bytes (\d+)-/.exec(headers.get("content-range") ?? "")?.[1]) : 0;
}

async function write(
  handle: FileHandle,
  chunk: Uint8Array,
  position: number,
  { name, size }: RemoteFile,
  { repo }: DownloadOptions,
): Promise<void> {
  try {
    for (let done = 0; done < chunk.length; ) {
      done += (await handle.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
    }
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    throw new HubError(
      `${repo}: ${name} needs ${size - position} more bytes, and the disk is full (${error.message}): free some, or set ` +
        "HF_HUB_CACHE to a folder on another disk; the same command goes on where it stopped",
      undefined,
      { cause: error },
    );
  }
}
