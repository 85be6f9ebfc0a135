// The native half of tfjs: upstream's binding and ours in one library, compiled on this machine against TensorFlow.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type EnsureOptions, ensureFolder, readFolder } from "./setup-cache.js";
import { SetupError } from "./setup-error.js";
import { run } from "./setup-run.js";

/** Where the binding's sources are. */
export type BindingSources = {
  /** tfjs-jit's folder with binding.cc, and with what else of its C++ is compiled with it. */
  own: string;
  /** The folder binding/ of @tensorflow/tfjs-node-gpu. */
  upstream: string;
  /** Node's C headers. */
  headers: string;
};

/** A C++ compiler; `command` may carry arguments of its own (CXX="ccache g++"). */
export type Compiler = { command: string; args: string[]; version: string };

export type BindingOptions = EnsureOptions & { cache: string; env: NodeJS.ProcessEnv };

export const bindingFile = "tfjs_binding.node";

const flags = ["-O2", "-shared", "-fPIC", "-std=c++17", "-DNAPI_VERSION=8", "-DBUILDING_NODE_EXTENSION"];

const libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"];

/** CXX where it is set, else c++, g++ or clang++, whichever is on PATH. */
export async function findCompiler(env: NodeJS.ProcessEnv): Promise<Compiler | undefined> {
  const commands = env.CXX?.trim() ? [env.CXX.trim()] : ["c++", "g++", "clang++"];
  for (const words of commands) {
    const [command, ...args] = words.split(/\s+/);
    const ran = await run(command!, [...args, "--version"], { env });
    if (ran?.code === 0) return { command: command!, args, version: ran.stdout.split("\n")[0]!.trim() };
  }
  return undefined;
}

/**
 * Makes sure of a compiled binding in the cache. Its folder is named by everything that it depends on; where the
 * compiler is gone, one that any compiler made of the same sources will do.
 */
export async function ensureBinding(
  sources: BindingSources,
  tensorflow: { folder: string; about: Record<string, string> },
  compiler: Compiler | undefined,
  options: BindingOptions,
): Promise<{ folder: string; made: boolean }> {
  const prefix = `binding-${hashSources(sources, tensorflow.folder)}-`;
  if (!compiler) return { folder: compiledBefore(options.cache, prefix, options.env), made: false };

  const name = prefix + hash([compiler.version]);
  const make = async (folder: string) => {
    options.log("compiling the binding (about 10 s)");
    const file = join(folder, bindingFile);
    await compile(sources, tensorflow.folder, compiler, file, options);
    await checkLoads(file, options);
    const about = { ...tensorflow.about, tensorflow: tensorflow.folder, compiler: compiler.version };
    return { about, files: { [bindingFile]: (await stat(file)).size } };
  };
  const made = await ensureFolder(options.cache, name, make, options);
  return { folder: join(options.cache, name), made };
}

const hash = (parts: readonly (string | Buffer)[]): string => {
  const sum = createHash("sha256");
  for (const part of parts) sum.update(part).update("\0");
  return sum.digest("hex").slice(0, 12);
};

function hashSources(sources: BindingSources, tensorflow: string): string {
  const files = [sources.own, sources.upstream, sources.headers].flatMap((folder) => filesIn(folder, /\.(cc|h)$/));
  return hash([tensorflow, ...flags, ...libraries, ...files.map((file) => readFileSync(file))]);
}

const filesIn = (folder: string, names: RegExp): string[] =>
  readdirSync(folder)
    .filter((file) => names.test(file))
    .sort()
    .map((file) => join(folder, file));

function compiledBefore(cache: string, prefix: string, env: NodeJS.ProcessEnv): string {
  for (const name of readdirSync(cache)) {
    if (name.startsWith(prefix) && readFolder(join(cache, name))) return join(cache, name);
  }
  throw noCompiler(env);
}

export const noCompiler = (env: NodeJS.ProcessEnv): SetupError => {
  const missing = env.CXX?.trim()
    ? `the C++ compiler that CXX names, "${env.CXX.trim()}", does not run`
    : "no C++ compiler: no c++, g++ or clang++ on PATH";
  return new SetupError(
    `${missing}. Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++) or name one in CXX, then run npm run setup again.`,
  );
};

async function compile(
  sources: BindingSources,
  tensorflow: string,
  compiler: Compiler,
  output: string,
  options: BindingOptions,
): Promise<void> {
  const library = join(tensorflow, "tensorflow");
  const args = [
    ...compiler.args,
    ...flags,
    "-I",
    sources.upstream,
    "-I",
    sources.headers,
    "-I",
    join(library, "include"),
  ];
  args.push(...filesIn(sources.own, /\.cc$/), join(sources.upstream, "tfjs_backend.cc"), "-o", output);
  args.push("-L", library, ...libraries);
  // -Xlinker, because -Wl would split a path at its commas. Of NVIDIA's libraries only this one is opened by the binding.
  for (const folder of [library, join(tensorflow, "nvidia", "cusolver", "lib")])
    args.push("-Xlinker", "-rpath", "-Xlinker", folder);
  const ran = await run(compiler.command, args, options);
  if (ran?.code === 0) return;
  const report = join(options.cache, "compile-error.log");
  const text = ran ? ran.stderr + ran.stdout : "";
  if (/No space left on device/.test(text))
    throw new SetupError(`no room on the disk for the compiler's files. Free some, then run npm run setup again.`);
  await writeFile(report, `${[compiler.command, ...args].join(" ")}\n${text}`);
  const reason = /^.*error: .*$/m.exec(text)?.[0] ?? `exit code ${ran?.code}`;
  throw new SetupError(
    `${compiler.version} cannot compile the binding: ${reason} (all of it: ${report}). Try another compiler in CXX, then run npm run setup again.`,
  );
}

/** Loads the binding in a process of its own: a library that this system lacks or a too old libstdc++ shows here. */
async function checkLoads(file: string, options: BindingOptions): Promise<void> {
  const load = "process.dlopen({ exports: {} }, process.argv[1])";
  const ran = await run(process.execPath, ["-e", load, file], options);
  if (ran?.code === 0) return;
  const reason = /^Error: (.*)$/m.exec(ran?.stderr ?? "")?.[1] ?? `exit code ${ran?.code}`;
  throw new SetupError(`the compiled binding does not load: ${reason}`);
}
