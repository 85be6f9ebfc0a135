/** Runs of the commands that train, as a user starts them, on a model so small that a step takes a fraction of a second. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, watch, writeFileSync } from "node:fs";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint, writeCheckpoint } from "safetensors-ts";
import { stringify } from "yaml";
import { packageRoot } from "../../config/paths.js";
import { type LogLine, readLog } from "../../pipelines/run-folder.js";
import { setKeys } from "../model/folder.js";
import { fixture } from "../model/golden.js";
import { newFolder } from "./command.js";

export const teacher = fixture("arithmetic/teacher");

/** Files of a model folder, sorted. */
export const modelFiles = [
  "chat_template.jinja",
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
];

/**
 * A new folder to run in, with `model`, `train.jsonl` and `held-out.jsonl`. The model is the first layer of the
 * arithmetic teacher, which cannot calculate but likes ones: the rows are sums that make 11.
 */
export async function newWorkplace(): Promise<string> {
  const dir = newFolder();
  await cutModel(teacher, join(dir, "model"), 1);
  const sum = (a: number) => ({ prompt: `${a}+${11 - a}=`, answer: "11", completion: "11" });
  writeRows(join(dir, "train.jsonl"), [2, 3, 4, 5, 6, 7, 8, 9].map(sum));
  writeRows(join(dir, "held-out.jsonl"), [0, 1, 10, 11].map(sum));
  return dir;
}

/** A model folder with the first layers of another. */
async function cutModel(from: string, to: string, layers: number): Promise<void> {
  await cp(from, to, { recursive: true });
  await rm(join(to, "model.safetensors"));
  const layerTypes = Array.from({ length: layers }, (_, i) => (i % 2 === 0 ? "sliding_attention" : "full_attention"));
  await setKeys(join(to, "config.json"), { num_hidden_layers: layers, layer_types: layerTypes });
  const checkpoint = await openCheckpoint(from);
  const kept = checkpoint.tensors.filter(({ name }) => Number(/layers\.(\d+)/.exec(name)?.[1] ?? 0) < layers);
  const tensors = kept.map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
    chunks: async function* () {
      yield await checkpoint.read(name);
    },
  }));
  await writeCheckpoint(to, tensors);
  await checkpoint.close();
}

export const writeRows = (path: string, rows: readonly object[]): void =>
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

/** Writes a config as NAME.yaml into `cwd`, with the keys that all of these runs share. Its run is in runs/NAME. */
export function writeConfig(cwd: string, name: string, config: object): string {
  const shared = { model: "model", train_data: "train.jsonl", max_new_tokens: 2 };
  writeFileSync(join(cwd, `${name}.yaml`), stringify({ ...shared, ...config }));
  return join(cwd, "runs", name);
}

/** A command that is running, with all its processes in a group of their own, as a terminal starts it. */
export interface Program {
  /** Waits for a text on stderr. */
  said(pattern: RegExp): Promise<void>;
  /** Waits until the run in a folder has logged so many steps. */
  logged(run: string, steps: number): Promise<void>;
  /** Sends a signal to all processes of the group, as Ctrl-C does. Gives how it all ended. */
  end(signal?: NodeJS.Signals): Promise<Ending>;
}

/** `code` is null after SIGKILL; `seconds` are those since the signal. */
export type Ending = { code: number | null; seconds: number; stdout: string; stderr: string };

const programs = new Set<ChildProcess>();

/** Kills what a failed test has left behind. */
export function killPrograms(): void {
  for (const child of programs) signalGroup(child, "SIGKILL");
}

/** Starts `heddle COMMAND NAME.yaml` in `cwd`. Op by op unless `jit`: a compiled step is fast, but takes seconds to compile. */
export function startRun(cwd: string, command: string, name: string, { jit = false } = {}): Program {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL("bin/heddle.js", packageRoot)), command, `${name}.yaml`],
    {
      cwd,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, HEDDLE_JIT: jit ? "1" : "0" },
    },
  );
  programs.add(child);
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (more) => {
    stdout += more;
  });
  child.stderr.setEncoding("utf8").on("data", (more) => {
    stderr += more;
  });
  let hasEnded = false;
  const closed = once(child, "close").finally(() => {
    programs.delete(child);
    hasEnded = true;
  });
  const unlessEnded = async (event: Promise<unknown>, what: string) => {
    await Promise.race([event, closed]);
    if (hasEnded) throw new Error(`${command} ended with ${child.exitCode} before ${what}: ${stderr}`);
  };
  return {
    said: async (pattern) => {
      while (!pattern.test(stderr)) await unlessEnded(once(child.stderr, "data"), `it said ${pattern}`);
    },
    logged: async (run, steps) => {
      mkdirSync(run, { recursive: true });
      const watcher = watch(run);
      try {
        while (readLog(run).length < steps) await unlessEnded(once(watcher, "change"), `step ${steps}`);
      } finally {
        watcher.close();
      }
    },
    end: async (signal) => {
      const from = performance.now();
      if (signal !== undefined) signalGroup(child, signal);
      const [code] = (await closed) as [number | null];
      return { code, seconds: (performance.now() - from) / 1000, stdout, stderr };
    },
  };
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid!, signal);
  } catch {
    // All of it is gone.
  }
}

/** Runs `heddle COMMAND NAME.yaml` to its end. */
export const completeRun = (...run: Parameters<typeof startRun>): Promise<Ending> => startRun(...run).end();

type Weights = Record<string, { shape: readonly number[]; values: Float32Array }>;

/** A model folder: what it says beside its weights, their dtypes, and themselves as float32. */
export async function readModel(dir: string): Promise<{
  files: string[];
  texts: Record<string, string>;
  config: Record<string, unknown>;
  dtypes: string[];
  weights: Weights;
}> {
  const sideFiles = modelFiles.filter((name) => !["config.json", "model.safetensors"].includes(name));
  const checkpoint = await openCheckpoint(dir);
  const weights: Weights = {};
  for (const { name, shape } of checkpoint.tensors)
    weights[name] = { shape, values: await checkpoint.readFloat32(name) };
  await checkpoint.close();
  return {
    files: filesIn(dir),
    texts: Object.fromEntries(sideFiles.map((name) => [name, readFileSync(join(dir, name), "utf8")])),
    config: JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as Record<string, unknown>,
    dtypes: [...new Set(checkpoint.tensors.map(({ dtype }) => dtype))],
    weights,
  };
}

/** The largest change of any weight, by tensor. NaN where a value is. */
export function changes(from: Weights, to: Weights): Record<string, number> {
  const largest = (name: string) =>
    from[name]!.values.reduce((max, value, i) => Math.max(max, Math.abs(to[name]!.values[i]! - value)), 0);
  return Object.fromEntries(Object.keys(from).map((name) => [name, largest(name)]));
}

/** The paths of all files below a folder, sorted. Folders are left out. */
export const filesIn = (dir: string): string[] =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
    .sort();

/** log.jsonl without the speed: what a run that was interrupted has in common with one that was not. */
export const stepsOf = (run: string): LogLine[] => readLog(run).map(({ tokens_per_second, ...line }) => line);

/** The files of two folders that differ, by name; those that only one of them has, too. */
export function differingFiles(a: string, b: string): string[] {
  const [inA, inB] = [filesIn(a), filesIn(b)];
  const both = inA.filter((name) => inB.includes(name));
  const differing = both.filter((name) => !readFileSync(join(a, name)).equals(readFileSync(join(b, name))));
  return [...differing, ...[...inA, ...inB].filter((name) => !both.includes(name))];
}
