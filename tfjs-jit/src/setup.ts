// Puts a current TensorFlow under @tensorflow/tfjs-node-gpu. This entry imports no tfjs, which would throw without it.
//
//   wheel from PyPI --pip--> libtensorflow and its headers --c++--> tfjs_binding.node --symbolic link--> node_modules
//
// The first three are kept in a per-user cache, by version; the link is what `npm ci` removes.

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { BindingSources } from "./setup-binding.js";
import { cacheFolder } from "./setup-cache.js";
import { findNvidia } from "./setup-device.js";
import { bindingLink, readChoice, tfjsFolder, writeChoice } from "./setup-link.js";
import { checkPlatform } from "./setup-platform.js";
import { runSetup, type SetupResult } from "./setup-steps.js";
import { buildFor, type Device } from "./setup-wheels.js";

export { readsBfloat16On } from "./processor.js";
export { SetupError } from "./setup-error.js";
export { type SetupFacts, setupFacts } from "./setup-facts.js";
export { bindingLink, checkBinding, type LinkedBinding, readLink } from "./setup-link.js";
export type { Device, SetupResult };

export type SetupOptions = {
  /** Default: the one asked for last in this node_modules, else "gpu" where an NVIDIA driver answers, else "cpu". */
  device?: Device;
  /** Told each step that takes time, and at the end in one line what was done. */
  log?: (line: string) => void;
  /** Told, several times a second, how many bytes of the download have come. */
  progress?: (done: number, total: number) => void;
  signal?: AbortSignal;
};

/**
 * Makes tfjs ready to be imported: downloads TensorFlow (274 MB; for a GPU 3.4 GB), compiles the binding and links it,
 * whatever of it is missing. Throws a SetupError when this machine lacks something that the user can provide.
 */
export async function setup(options: SetupOptions = {}): Promise<SetupResult> {
  checkPlatform(process.platform, process.arch);
  const log = options.log ?? (() => {});
  const link = bindingLink();
  const device = options.device ?? readChoice(link) ?? (await detectDevice(log));
  const result = await runSetup({
    build: buildFor(device),
    cache: cacheFolder(),
    sources: bindingSources(),
    link,
    env: process.env,
    log,
    progress: options.progress ?? (() => {}),
    signal: options.signal,
  });
  if (options.device) await writeChoice(link, options.device);
  return result;
}

/** "gpu" where an NVIDIA driver answers that is new enough. */
async function detectDevice(log: (line: string) => void): Promise<Device> {
  const nvidia = await findNvidia(process.env);
  if (nvidia && !nvidia.usable) {
    log(
      `${nvidia.name}: its driver ${nvidia.driver} is too old for CUDA 12 (525 or newer), so TensorFlow will use the CPU`,
    );
  }
  return nvidia?.usable ? "gpu" : "cpu";
}

/** The same from src/ and from dist/: both are beside each other in the package. */
function bindingSources(): BindingSources {
  const headers = dirname(createRequire(import.meta.url).resolve("node-api-headers/package.json"));
  return {
    own: fileURLToPath(new URL("../src", import.meta.url)),
    upstream: join(tfjsFolder(), "binding"),
    headers: join(headers, "include"),
  };
}
