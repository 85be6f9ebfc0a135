// The steps of set-up in their order, on whatever wheels, cache, sources and link they are given.

import { join } from "node:path";
import { type BindingSources, bindingFile, ensureBinding, findCompiler, noCompiler } from "./setup-binding.js";
import { noRoom, readFolder } from "./setup-cache.js";
import { SetupError } from "./setup-error.js";
import { ensureLink } from "./setup-link.js";
import { clearLeftovers } from "./setup-lock.js";
import { ensureTensorflow, tensorflowFolderName } from "./setup-tensorflow.js";
import { type Build, buildName, type Device } from "./setup-wheels.js";

export type SetupPlan = {
  build: Build;
  cache: string;
  sources: BindingSources;
  link: string;
  env: NodeJS.ProcessEnv;
  log: (line: string) => void;
  progress: (done: number, total: number) => void;
  signal: AbortSignal | undefined;
};

export type SetupResult = {
  version: string;
  device: Device;
  /** The folder that holds tensorflow/ and, for a GPU, nvidia/. */
  tensorflow: string;
  binding: string;
  link: string;
  /** What had to be done, in this order; nothing when all was ready. */
  did: ("downloaded" | "compiled" | "linked")[];
};

/** Does what is missing, and logs one line of what it did. Safe to run again, in parallel, or to kill. */
export async function runSetup(plan: SetupPlan): Promise<SetupResult> {
  const started = performance.now();
  const { build, cache, link } = plan;
  try {
    const did: SetupResult["did"] = [];
    await clearLeftovers(cache);
    const tensorflow = join(cache, tensorflowFolderName(build));
    const compiler = await findCompiler(plan.env);
    // Said before the download, not after it.
    if (!compiler && !readFolder(tensorflow)) throw noCompiler(plan.env);
    if (await ensureTensorflow(build, plan)) did.push("downloaded");

    const about = { version: build.version, device: build.device };
    const binding = await ensureBinding(plan.sources, { folder: tensorflow, about }, compiler, plan);
    if (binding.made) did.push("compiled");
    if (await ensureLink(link, binding.folder)) did.push("linked");

    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    plan.log(`${buildName(build)} ${did.length === 0 ? "is ready" : `ready in ${seconds} s (${did.join(", ")})`}`);
    return { ...about, tensorflow, binding: join(binding.folder, bindingFile), link, did };
  } catch (error) {
    throw explainDisk(error, cache);
  }
}

/** What the file system refuses is the user's to change. */
function explainDisk(error: unknown, cache: string): unknown {
  const { code, path = cache, dest = path, message } = error as NodeJS.ErrnoException & { dest?: string };
  if (code === "ENOSPC" || code === "EDQUOT") return noRoom(cache, message);
  if (!code || !["EACCES", "EPERM", "EROFS", "ENOTDIR"].includes(code)) return error;
  const mend = dest.startsWith(cache) ? "Set HEDDLE_CACHE to a folder that can be written" : "Make it writable";
  return new SetupError(`cannot write ${dest}: ${message}. ${mend}, then run npm run setup again.`, { cause: error });
}
