// A machine for set-up's tests: a tiny wheel instead of TensorFlow, and a pip and a compiler that count their calls.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type { SetupPlan } from "../../tfjs-jit/src/setup-steps.js";

const which = (program: string): string =>
  execFileSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).trim();
const python = which("python3");

/** The temporary folder of one test run, and in it a wheel and the smallest library that Node loads. */
const shared = mkdtempSync(join(tmpdir(), "heddle-setup-"));
afterAll(() => rmSync(shared, { recursive: true, force: true }));
const wheelFile = "fake_tensorflow-1.0-cp311-cp311-manylinux_2_27_x86_64.whl";

/** The contents of the wheel; only what `keep` names may be unpacked. */
export const wheelFiles: Record<string, string> = {
  "tensorflow/libtensorflow_cc.so.2": "the library",
  "tensorflow/include/tensorflow/c/c_api.h": "a header",
  "tensorflow/python/keras.py": "not wanted",
};

function makeShared(): void {
  const script =
    "import json, sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as z:\n  for k, v in json.loads(sys.argv[2]).items(): z.writestr(k, v)";
  execFileSync(python, ["-c", script, join(shared, wheelFile), JSON.stringify(wheelFiles)]);
  writeFileSync(
    join(shared, "addon.cc"),
    `extern "C" void *napi_register_module_v1(void *, void *exports) { return exports; }\n`,
  );
  execFileSync(which("c++"), ["-shared", "-fPIC", join(shared, "addon.cc"), "-o", join(shared, "addon.node")]);
}
makeShared();

/** Stands for python3. FAKE_PIP says how `pip download` goes; every other call is for the real Python. */
const fakePython = `#!/bin/sh
PATH=/usr/bin:/bin
if [ "$FAKE_PIP" = none ]; then echo "ModuleNotFoundError: No module named 'pip'" >&2; exit 1; fi
if [ "$FAKE_PIP" = full-at-unpack ] && [ "$3" != "" ] && [ "$1" = -c ]; then exit 28; fi
if [ "$1 $2" != "-m pip" ]; then exec ${python} "$@"; fi
echo download >> "$FAKE_LOG"
while [ $# -gt 0 ]; do if [ "$1" = --dest ]; then dest=$2; fi; shift; done
case "$FAKE_PIP" in
  slow) mkdir "$TMPDIR/pip-unpack"; echo half > "$TMPDIR/pip-unpack/${wheelFile}"; sleep 2 ;;
  short) head -c 100 ${join(shared, wheelFile)} > "$dest/${wheelFile}"; exit 0 ;;
  other) sed s/wanted/WANTED/ ${join(shared, wheelFile)} > "$dest/${wheelFile}"; exit 0 ;;
  nothing) exit 0 ;;
  ok|full-at-unpack) ;;
  *) echo "$FAKE_PIP" >&2; exit 1 ;;
esac
cp ${join(shared, wheelFile)} "$dest/${wheelFile}"
`;

/** Stands for c++. FAKE_CXX says how compiling goes. */
const fakeCompiler = `#!/bin/sh
PATH=/usr/bin:/bin
case "$*" in *--version) echo "fake c++ $FAKE_CXX_VERSION"; exit 0 ;; esac
echo compile >> "$FAKE_LOG"
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then output=$2; fi; shift; done
case "$FAKE_CXX" in
  slow) echo half > "$output"; sleep 2 ;;
  broken) echo "In file included from x" >&2; echo "binding.cc:7:1: error: 'TF_Graph' was not declared" >&2; exit 1 ;;
  junk) echo "not a library" > "$output"; exit 0 ;;
esac
cp ${join(shared, "addon.node")} "$output"
`;

export type FakeMachine = {
  plan: SetupPlan;
  folder: string;
  lines: string[];
  /** How often pip downloaded and the compiler compiled, in order. */
  calls: () => string[];
};

/** A machine that has nothing yet; `programs` are those on PATH. */
export function fakeMachine(
  programs: readonly ("python3" | "python" | "c++" | "g++")[] = ["python3", "c++"],
): FakeMachine {
  const folder = mkdtempSync(join(shared, "machine-"));
  const bin = join(folder, "bin");
  mkdirSync(bin);
  for (const program of programs) {
    writeFileSync(join(bin, program), program.startsWith("python") ? fakePython : fakeCompiler, { mode: 0o755 });
  }
  const sources = {
    own: join(folder, "own"),
    upstream: join(folder, "upstream"),
    headers: join(folder, "headers"),
  };
  mkdirSync(sources.own);
  mkdirSync(sources.upstream);
  mkdirSync(sources.headers);
  for (const file of [
    join(sources.own, "binding.cc"),
    join(sources.upstream, "tfjs_backend.cc"),
    join(sources.headers, "node_api.h"),
  ]) {
    writeFileSync(file, `// ${file}\n`);
  }
  const log = join(folder, "calls.log");
  const lines: string[] = [];
  const plan: SetupPlan = {
    build: { version: "1.0", device: "cpu", wheels: [fakeWheel] },
    cache: join(folder, "cache"),
    sources,
    link: join(folder, "node_modules", "lib", "napi-v8", "tfjs_binding.node"),
    env: { PATH: bin, HOME: folder, FAKE_LOG: log, FAKE_PIP: "ok", FAKE_CXX: "ok", FAKE_CXX_VERSION: "1" },
    log: (line) => lines.push(line),
    progress: () => {},
    signal: undefined,
  };
  const calls = () => (existsSync(log) ? readFileSync(log, "utf8").trim().split("\n") : []);
  return { plan, folder, lines, calls };
}

const fakeWheel = {
  name: "fake-tensorflow",
  version: "1.0",
  file: wheelFile,
  bytes: statSync(join(shared, wheelFile)).size,
  sha256: createHash("sha256")
    .update(readFileSync(join(shared, wheelFile)))
    .digest("hex"),
  keep: ["tensorflow/libtensorflow_cc.so.2", "tensorflow/include/tensorflow/c/"],
  unpackedBytes: 1000,
};

/** Puts the wheel where an earlier set-up would have left it. */
export function leaveDownload(cache: string): void {
  mkdirSync(join(cache, "downloads"), { recursive: true });
  copyFileSync(join(shared, wheelFile), join(cache, "downloads", wheelFile));
}

/** A script that runs the compiled set-up in a process of its own, with this machine's plan. */
export function setupScript(machine: FakeMachine): string {
  const steps = new URL("../../tfjs-jit/dist/setup-steps.js", import.meta.url).href;
  const { log, progress, signal, ...plan } = machine.plan;
  const script = join(machine.folder, "run.mjs");
  writeFileSync(
    script,
    `import { runSetup } from ${JSON.stringify(steps)};
const plan = ${JSON.stringify(plan)};
const { did } = await runSetup({ ...plan, log: () => {}, progress: () => {}, signal: undefined });
console.log(JSON.stringify(did));
`,
  );
  return script;
}
