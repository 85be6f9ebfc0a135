// TensorFlow's folder in the cache: wheels downloaded, checked, and the needed files unpacked as in site-packages.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { checkRoom, ensureFolder, formatBytes, noRoom } from "./setup-cache.js";
import { download, downloadPath, isDownloaded } from "./setup-download.js";
import { SetupError } from "./setup-error.js";
import { findPython, type Python } from "./setup-python.js";
import { run } from "./setup-run.js";
import { type Build, buildName, type Wheel } from "./setup-wheels.js";

export type TensorflowOptions = {
  cache: string;
  env: NodeJS.ProcessEnv;
  log: (line: string) => void;
  /** Bytes of all wheels together. */
  progress: (done: number, total: number) => void;
  signal: AbortSignal | undefined;
};

export const tensorflowFolderName = (build: Build): string =>
  `tensorflow-${build.version}-${build.device}-${process.platform}-${process.arch}`;

/** Makes sure of the build's folder in the cache. Returns whether it had to be made. */
export function ensureTensorflow(build: Build, options: TensorflowOptions): Promise<boolean> {
  return ensureFolder(
    options.cache,
    tensorflowFolderName(build),
    async (folder) => {
      const python = await findPython(options.env);
      await downloadAll(build, python, options);
      options.log(`unpacking ${buildName(build)}`);
      const files: Record<string, number> = {};
      for (const wheel of build.wheels) Object.assign(files, await unpack(wheel, folder, python, options));
      for (const wheel of build.wheels) await rm(downloadPath(options.cache, wheel), { force: true });
      return { about: { version: build.version, device: build.device }, files };
    },
    options,
  );
}

async function downloadAll(build: Build, python: Python, options: TensorflowOptions): Promise<void> {
  const missing: Wheel[] = [];
  for (const wheel of build.wheels) if (!(await isDownloaded(options.cache, wheel))) missing.push(wheel);
  const sum = (wheels: readonly Wheel[], bytes: (wheel: Wheel) => number) =>
    wheels.reduce((total, wheel) => total + bytes(wheel), 0);
  const total = sum(missing, (wheel) => wheel.bytes);
  await checkRoom(options.cache, total + sum(build.wheels, (wheel) => wheel.unpackedBytes));
  if (missing.length === 0) return;

  options.log(`downloading ${buildName(build)}, ${formatBytes(total)}, to ${options.cache}`);
  let before = 0;
  for (const wheel of missing) {
    await download(wheel, { ...options, python, onBytes: (bytes) => options.progress(before + bytes, total) });
    before += wheel.bytes;
  }
}

/** Python's zipfile checks each file's CRC; it drops the mode, which ptxas needs. Prints {path: bytes}. */
const unzip = `
import errno, json, os, sys, zipfile
wheel, folder, *keep = sys.argv[1:]
files = {}
try:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.is_dir() and member.filename.startswith(tuple(keep)):
                path = archive.extract(member, folder)
                os.chmod(path, (member.external_attr >> 16 & 0o777) | 0o600)
                files[member.filename] = member.file_size
except OSError as error:
    sys.exit(28 if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error))
print(json.dumps(files))
`;
const noRoomCode = 28;

async function unpack(wheel: Wheel, folder: string, python: Python, { cache, env, signal }: TensorflowOptions) {
  const args = ["-c", unzip, downloadPath(cache, wheel), folder, ...wheel.keep];
  const ran = await run(python.command, args, { env, signal });
  if (ran?.code === noRoomCode) throw noRoom(cache, `${wheel.file} needs ${formatBytes(wheel.unpackedBytes)} unpacked`);
  if (ran?.code !== 0) {
    throw new SetupError(
      `${join("downloads", wheel.file)} cannot be unpacked: ${ran?.stderr.trim().split("\n").at(-1)}. Run npm run setup again.`,
    );
  }
  return JSON.parse(ran.stdout) as Record<string, number>;
}
