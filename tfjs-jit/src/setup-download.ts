// Fetches one wheel with pip, so that the user's mirrors, proxies and certificates work as they do for Python.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { formatBytes, noRoom } from "./setup-cache.js";
import { SetupError } from "./setup-error.js";
import { withTemporaryFolder } from "./setup-lock.js";
import type { Python } from "./setup-python.js";
import { run } from "./setup-run.js";
import { type Wheel, wheelPython } from "./setup-wheels.js";

export type DownloadOptions = {
  cache: string;
  python: Python;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal | undefined;
  /** Told the bytes of this wheel that have come, several times a second. */
  onBytes: (bytes: number) => void;
};

const pollMs = 150;

/** Where downloads wait until everything is unpacked: a set-up that was cut off goes on with the next wheel. */
export const downloadPath = (cache: string, wheel: Wheel): string => join(cache, "downloads", wheel.file);

/** Whether the wheel is already there, whole. */
export const isDownloaded = async (cache: string, wheel: Wheel): Promise<boolean> => {
  const path = downloadPath(cache, wheel);
  const stats = await stat(path).catch(() => undefined);
  return stats?.size === wheel.bytes && (await sha256(path)) === wheel.sha256;
};

/** Downloads a wheel to downloadPath, checked by its sha256. */
export async function download(wheel: Wheel, options: DownloadOptions): Promise<void> {
  await withTemporaryFolder(options.cache, async (folder) => {
    const timer = setInterval(() => void downloadedBytes(folder).then(options.onBytes, () => {}), pollMs);
    try {
      await pipDownload(wheel, folder, options);
    } finally {
      clearInterval(timer);
    }
    await check(wheel, join(folder, wheel.file));
    await mkdir(join(options.cache, "downloads"), { recursive: true });
    await rename(join(folder, wheel.file), downloadPath(options.cache, wheel));
    options.onBytes(wheel.bytes);
  });
}

async function pipDownload(wheel: Wheel, folder: string, options: DownloadOptions): Promise<void> {
  const platform = wheel.file
    .replace(/\.whl$/, "")
    .split("-")
    .at(-1)!
    .split(".")[0]!;
  const args = ["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", "off", "--dest", folder];
  args.push("--python-version", wheelPython.version, "--implementation", "cp", "--abi", wheelPython.abi);
  args.push("--platform", platform, "--only-binary=:all:", `${wheel.name}==${wheel.version}`);
  const env = {
    ...options.env,
    // pip downloads into its temporary folder: here the growing file can be seen, and is cleared away.
    TMPDIR: folder,
    PIP_REQUIRE_VIRTUALENV: "0",
    PIP_DISABLE_PIP_VERSION_CHECK: "1",
  };
  const ran = await run(options.python.command, args, { env, signal: options.signal });
  if (ran?.code !== 0) throw explainPip(wheel, ran?.stderr ?? "", options);
}

/** The size of the one file that grows somewhere below the folder. */
async function downloadedBytes(folder: string): Promise<number> {
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  const sizes = files
    .filter((file) => file.isFile())
    .map(async (file) => (await stat(join(file.parentPath, file.name))).size);
  return Math.max(0, ...(await Promise.all(sizes)));
}

async function check(wheel: Wheel, path: string): Promise<void> {
  const bytes = (await stat(path).catch(() => undefined))?.size;
  if (bytes === undefined) throw new SetupError(`pip did not download ${wheel.file}. ${again}`);
  if (bytes < wheel.bytes) {
    throw new SetupError(`${wheel.file}: cut short, ${bytes} of ${wheel.bytes} bytes came. ${again}`);
  }
  const got = await sha256(path);
  if (got !== wheel.sha256) {
    throw new SetupError(
      `${wheel.file}: sha256 ${got}, expected ${wheel.sha256}: not the file on PyPI. Check pip's index (pip config list), then run npm run setup again.`,
    );
  }
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

const again = "Run npm run setup again.";

/** Why pip failed, from what it printed. A dead network also ends in "No matching distribution", so it is looked for first. */
function explainPip(wheel: Wheel, stderr: string, { cache, python }: DownloadOptions): SetupError {
  const what = `${wheel.name} ${wheel.version}`;
  const reason =
    stderr
      .split("\n")
      .findLast((line) => line.startsWith("ERROR: "))
      ?.slice(7)
      .trim() ?? "no reason given";
  if (/No space left on device|Errno 28|Errno 122/.test(stderr)) {
    return noRoom(cache, `pip could not store ${what} (${formatBytes(wheel.bytes)})`);
  }
  if (
    /NewConnectionError|ConnectionError|ConnectTimeout|name resolution|Network is unreachable|ProxyError|Max retries/.test(
      stderr,
    )
  ) {
    return new SetupError(
      `no network: pip cannot reach its index for ${what}. Connect and run npm run setup again; or, with ${wheel.file} in a folder, PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER npm run setup.`,
    );
  }
  if (
    /IncompleteRead|Connection broken|Read timed out|ReadTimeout|not enough bytes|DO NOT MATCH THE HASHES/.test(stderr)
  ) {
    return new SetupError(`${what}: the download was cut short (${reason}). ${again}`);
  }
  if (/No matching distribution|Could not find a version/.test(stderr)) {
    return new SetupError(
      `pip ${python.pip} finds no ${wheel.file} on its index. Check pip's index (pip config list), or update pip, then run npm run setup again.`,
    );
  }
  return new SetupError(`pip cannot download ${what}: ${reason}. ${again}`);
}
