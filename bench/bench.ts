/**
 * `npm run bench`: each work in turn with its peer's script, several times over, and one table of the medians.
 *
 *     npm run bench -- --python PYTHON --peers DIR [--gpu] [WORK ...]
 *
 * With --gpu both run on the GPU, those works that can, and ours tells its utilisation; where there is none it says so.
 */
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { alignColumns } from "../pipelines/table.js";
import { findGpu, ON_GPU } from "./gpu.js";
import { arithmetic } from "./stages.js";
import { median } from "./time.js";

type Line = Readonly<Record<string, number | string>>;
type Command = {
  readonly script: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Seconds that a line of the output tells; undefined where it tells something else. */
  readonly seconds: (line: Line) => number | undefined;
};
/** `most` is the ratio that is aimed at. */
type Work = {
  readonly rounds: number;
  readonly most: number;
  readonly ours: Command;
  readonly peer: Command;
  /** Whether the peer's script can run on a GPU. */
  readonly onGpu?: boolean;
};

const seconds = (key: string) => (line: Line) => line[key] as number | undefined;
const works: Readonly<Record<string, Work>> = {
  "train step": {
    onGpu: true,
    rounds: 3,
    most: 0.6,
    ours: { script: "train-step.js", seconds: seconds("median_s") },
    peer: { script: "train_step.py", seconds: seconds("median_s") },
  },
  "train step, torch.compile": {
    onGpu: true,
    rounds: 3,
    most: 0.8,
    ours: { script: "train-step.js", seconds: seconds("median_s") },
    peer: { script: "train_step.py", args: ["--compile"], seconds: seconds("median_s") },
  },
  generate: {
    onGpu: true,
    rounds: 3,
    most: 0.35,
    ours: { script: "generate.js", seconds: seconds("median_s") },
    peer: { script: "generate.py", seconds: seconds("median_s") },
  },
  "distil step": {
    rounds: 3,
    most: 0.45,
    ours: { script: "gkd.js", seconds: seconds("median_s") },
    peer: { script: "gkd.py", seconds: seconds("median_s") },
  },
  "distil step, bf16 teacher": {
    rounds: 3,
    most: 0.4,
    ours: { script: "gkd.js", args: ["bfloat16"], seconds: seconds("median_s") },
    peer: { script: "gkd.py", seconds: seconds("median_s") },
  },
  "kd memory": {
    onGpu: true,
    rounds: 1,
    most: 1,
    ours: { script: "kd-memory.js", seconds: seconds("median_s") },
    peer: { script: "kd_memory.py", seconds: seconds("median_s") },
  },
  distill: {
    rounds: 1,
    most: 0.5,
    ours: { script: "distill.js", seconds: seconds("total_s") },
    peer: { script: "gkd_arithmetic.py", env: { ARITHMETIC: arithmetic("") }, seconds: seconds("total_s") },
  },
  rl: {
    rounds: 1,
    most: 0.5,
    ours: { script: "warp.js", seconds: seconds("total_s") },
    peer: {
      script: "warp_torch.py",
      args: [arithmetic(""), "200", "100", "1e-4", "0", "0.02"],
      env: { K: "8", PROMPTS: "32" },
      seconds: (line) => (line.what === "iteration 0 run 0" ? (line.s as number) : undefined),
    },
  },
  "merge linear": merge("linear", "linear", 0.25),
  "merge warp": merge("warp", "nuslerp", 0.25),
  "merge ties": merge("ties", "ties", 0.083),
};

/** A merge of the models that merge.py makes, once, in a folder of 1.5 GB; each of its runs does all its recipes. */
function merge(ours: string, peers: string, most: number): Work {
  const folder = join(tmpdir(), "heddle-bench-merge");
  const isPeers = ({ name }: Line) => name === `mergekit ${peers}`;
  return {
    rounds: 1,
    most,
    ours: { script: "merge.js", args: [folder, ours], seconds: seconds("median_s") },
    peer: {
      script: "merge.py",
      args: [folder],
      seconds: (line) => (isPeers(line) ? (line.median_s as number) : undefined),
    },
  };
}

/** Runs a script until it has told its seconds. `before` are the program's own arguments. */
async function run(
  [program, ...before]: readonly [string, ...string[]],
  folder: string,
  { script, args = [], env, seconds }: Command,
): Promise<number> {
  const child = spawn(program, [...before, join(folder, script), ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  const failed = new Promise<never>((_, reject) => {
    child.on("error", reject);
    child.on("exit", (code) =>
      reject(new Error(`${program} ${script} ended with exit code ${code} before it told its time`)),
    );
  });
  const told = async (): Promise<number> => {
    for await (const text of createInterface({ input: child.stdout })) {
      if (!text.startsWith('{"')) continue;
      process.stderr.write(`${text}\n`);
      const found = seconds(JSON.parse(text) as Line);
      if (found !== undefined) return found;
    }
    return failed;
  };
  try {
    return await Promise.race([told(), failed]);
  } finally {
    stopAll(child.pid!);
  }
}

/** Stops a script and what it has started, which would slow the next one down. */
function stopAll(pid: number): void {
  try {
    process.kill(-pid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

const { values, positionals } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    peers: { type: "string", default: "../shared/bench" },
    gpu: { type: "boolean", default: false },
  },
  allowPositionals: true,
});
const unknown = positionals.find((name) => !(name in works));
if (unknown !== undefined) {
  console.error(`error: no work is called ${unknown}; expected some of: ${Object.keys(works).join(", ")}`);
  process.exit(2);
}

const gpu = values.gpu ? await findGpu() : null;
if (typeof gpu === "string") {
  console.log(`nothing to run on a GPU: ${gpu}`);
  process.exit(0);
}
const names = positionals.length > 0 ? positionals : Object.keys(works).filter((name) => !gpu || works[name]!.onGpu);
const own = fileURLToPath(new URL(".", import.meta.url));
const rows: string[][] = [["work", "ours", "peer's", "ratio", "aim"]];
for (const name of names) {
  const { rounds, most, ours, peer } = works[name]!;
  const times: { ours: number[]; peer: number[] } = { ours: [], peer: [] };
  for (let round = 0; round < rounds; round++) {
    times.peer.push(await run(gpu ? [values.python, "-c", ON_GPU] : [values.python], resolve(values.peers), peer));
    times.ours.push(await run([process.execPath], own, ours));
  }
  const [a, b] = [median(times.ours), median(times.peer)];
  rows.push([name, `${a.toPrecision(3)} s`, `${b.toPrecision(3)} s`, (a / b).toFixed(2), `<= ${most}`]);
}
process.stdout.write(alignColumns(rows));
if (gpu !== null) {
  // What it prints goes to the terminal as well.
  const args = gpu.peakTflops === null ? [] : [`${gpu.peakTflops}`];
  await run([process.execPath], own, {
    script: "utilisation.js",
    args,
    seconds: (line) => line.tokens_per_second as number | undefined,
  });
}
