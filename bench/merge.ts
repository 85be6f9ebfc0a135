/**
 * `heddle merge` on the models and recipes that the peer's merge.py leaves in a folder: wall time and peak memory of the
 * whole command, and what reading the inputs and writing the output cost without any work.
 *
 *     node dist/bench/merge.js DIR linear|nuslerp|warp|ties [--rounds 3] [--workers N]
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { compiledModule } from "../config/paths.js";
import { median, print } from "./time.js";

/** WARP is what nuslerp with a base is in mergekit: SLERP of task vectors, here with an angle a layer, and LITI. */
const WARP = `merge_method: warp
base_model: ./base
models: [{model: ./a}, {model: ./b}]
parameters: {eta: 0.3}
out_dtype: bfloat16
`;

const { values, positionals } = parseArgs({
  options: { rounds: { type: "string", default: "3" }, workers: { type: "string" } },
  allowPositionals: true,
});
const [folder, name] = positionals as [string, string];
if (!existsSync(join(folder, "warp.yml"))) writeFileSync(join(folder, "warp.yml"), WARP);

type Measured = { readonly seconds: number; readonly peakMb: number };

/** Runs a program in the folder. Its peak resident memory is what the kernel last told while it ran. */
async function measure(program: string, args: readonly string[]): Promise<Measured> {
  const began = performance.now();
  const child = spawn(program, args, { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  let seconds = 0;
  const ended = new Promise<number | null>((resolve) => {
    child.on("exit", (code) => {
      seconds = (performance.now() - began) / 1000;
      resolve(code);
    });
  });
  let peakMb = 0;
  let isRunning = true;
  const watch = async () => {
    while (isRunning) {
      peakMb = Math.max(peakMb, residentPeakMb(child.pid!));
      await sleep(10);
    }
  };
  const watching = watch();
  const code = await ended;
  isRunning = false;
  await watching;
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with exit code ${code}`);
  return { seconds, peakMb };
}

function residentPeakMb(pid: number): number {
  try {
    return Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

const out = `out-heddle-${name}`;
const heddle = new URL("../bin/heddle.js", compiledModule("")).pathname;
const inputs = (name === "linear" ? ["a", "b"] : ["base", "a", "b"]).map((model) => join(model, "model.safetensors"));
const flags = ["--overwrite", ...(values.workers === undefined ? [] : ["--workers", values.workers])];
const merges: Measured[] = [];
const copies: number[] = [];
for (let round = 0; round < Number(values.rounds); round++) {
  // Each writes files that are not there yet: giving old blocks back is no part of the work.
  for (const old of [out, "copy.safetensors"]) rmSync(join(folder, old), { recursive: true, force: true });
  const read = await measure("sh", ["-c", `cat ${inputs.join(" ")} > /dev/null`]);
  const copied = await measure("cp", [inputs[0]!, "copy.safetensors"]);
  copies.push(read.seconds + copied.seconds);
  merges.push(await measure(process.execPath, [heddle, "merge", `${name}.yml`, out, ...flags]));
}
const seconds = merges.map((merge) => merge.seconds);
print({
  name: `heddle merge ${name}`,
  median_s: median(seconds),
  min_s: Math.min(...seconds),
  runs: seconds.length,
  peak_rss_mb: Math.round(Math.max(...merges.map(({ peakMb }) => peakMb))),
  cat_and_cp_s: median(copies),
});
rmSync(join(folder, out), { recursive: true, force: true });
rmSync(join(folder, "copy.safetensors"), { force: true });
