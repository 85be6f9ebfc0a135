// What set-up finds on this machine, for `heddle doctor`. Changes nothing.

import { existsSync, lstatSync, readdirSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { findCompiler } from "./setup-binding.js";
import { cacheFolder, readFolder } from "./setup-cache.js";
import { findNvidia, type Nvidia } from "./setup-device.js";
import type { SetupError } from "./setup-error.js";
import { bindingLink, type LinkedBinding, readLink } from "./setup-link.js";
import { checkPlatform } from "./setup-platform.js";
import { findPython } from "./setup-python.js";
import { tensorflowFolderName } from "./setup-tensorflow.js";
import { buildFor, type Device, tensorflowVersion } from "./setup-wheels.js";

export type SetupFacts = {
  /** The TensorFlow that this version of tfjs-jit wants. */
  wanted: string;
  /** `neededBytes` is what set-up would download and unpack. */
  cache: { folder: string; freeBytes: number; neededBytes: number };
  /** Why TensorFlow cannot be set up on this platform. */
  unsupported: string | null;
  /** TensorFlow folders in the cache; `whole` is false for a damaged one, which set-up replaces. */
  tensorflow: { folder: string; whole: boolean }[];
  link: {
    path: string;
    /** "foreign" is a binding that set-up did not make; behind a "damaged" one the TensorFlow folder is not whole. */
    state: "ready" | "foreign" | "damaged" | "dangling" | "missing";
    binding: LinkedBinding | null;
  };
  python: { command: string; version: string; pip: string } | null;
  compiler: { command: string; version: string } | null;
  nvidia: Nvidia | null;
  /** The device that setup() would choose by itself. */
  device: Device;
};

export async function setupFacts(
  env: NodeJS.ProcessEnv = process.env,
  link: string = bindingLink(),
): Promise<SetupFacts> {
  const [python, compiler, nvidia] = await Promise.all([
    findPython(env).catch(() => null),
    findCompiler(env),
    findNvidia(env),
  ]);
  const device = nvidia?.usable ? "gpu" : "cpu";
  const folder = cacheFolder(env);
  return {
    wanted: tensorflowVersion,
    cache: { folder, freeBytes: await freeBytes(folder), neededBytes: neededBytes(folder, device) },
    unsupported: unsupported(),
    tensorflow: tensorflowFolders(folder),
    link: { path: link, state: linkState(link), binding: readLink(link) ?? null },
    python,
    compiler: compiler ? { command: [compiler.command, ...compiler.args].join(" "), version: compiler.version } : null,
    nvidia: nvidia ?? null,
    device,
  };
}

function unsupported(): string | null {
  try {
    checkPlatform(process.platform, process.arch);
    return null;
  } catch (error) {
    return (error as SetupError).message;
  }
}

function neededBytes(cache: string, device: Device): number {
  const build = buildFor(device);
  if (readFolder(join(cache, tensorflowFolderName(build)))) return 0;
  return build.wheels.reduce((sum, { bytes, unpackedBytes }) => sum + bytes + unpackedBytes, 0);
}

/** Free on the disk of a folder that need not exist yet. */
async function freeBytes(folder: string): Promise<number> {
  let existing = folder;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = await statfs(existing);
  return bavail * bsize;
}

function tensorflowFolders(cache: string): SetupFacts["tensorflow"] {
  if (!existsSync(cache)) return [];
  const names = readdirSync(cache).filter((name) => name.startsWith("tensorflow-") && !name.includes(".lock"));
  return names.map((name) => ({ folder: join(cache, name), whole: readFolder(join(cache, name)) !== undefined }));
}

function linkState(link: string): SetupFacts["link"]["state"] {
  if (!lstatSync(link, { throwIfNoEntry: false })) return "missing";
  if (!existsSync(link)) return "dangling";
  const binding = readLink(link);
  if (!binding) return "foreign";
  return readFolder(binding.tensorflow) ? "ready" : "damaged";
}
