/** runs/NAME: what a run was asked for (config.yaml), how far it is (state.json) and what happened (log.jsonl). */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "yaml";
import { UserError } from "./errors.js";
import { writeFileAtomic } from "./files.js";
import { takeLock } from "./lock.js";

/** One step. `phase` is sft, distill or rl; iteration and run count from 1; NaN is written as null. */
export interface LogLine {
  phase: string;
  iteration?: number;
  run?: number;
  step: number;
  [metric: string]: string | number | boolean | null | undefined;
}

/** The stages that are done, by name ("distill", "iteration-1/run-2"), each with its result: plain JSON. */
export interface RunState {
  stages: Record<string, unknown>;
}

/** A run that this process alone may write. Nothing here waits: every call returns once its file is written. */
export interface Run {
  /** Absolute. */
  readonly dir: string;
  readonly state: RunState;
  /** Appends one line to log.jsonl. */
  log(line: LogLine): void;
  /** A stage that resumes drops the lines after the step it resumes from. The file is replaced in one step. */
  truncateLog(keep: (line: LogLine) => boolean): void;
  /** Marks a stage as done in state.json, replaced in one step. */
  finishStage(stage: string, result: unknown): void;
  /** Gives the lock back. */
  close(): void;
}

/**
 * Opens a run, new or to be resumed, and locks it until close() or the end of the process.
 * `config` is the resolved config. UserError when the folder belongs to a run with another config, to another process,
 * or to something that is not a run.
 */
export async function openRun(dir: string, config: object): Promise<Run> {
  const folder = resolve(dir);
  const configPath = join(folder, "config.yaml");
  const statePath = join(folder, "state.json");
  const logPath = join(folder, "log.jsonl");

  refuseOtherFolders(dir, folder);
  mkdirSync(folder, { recursive: true });
  const release = await takeLock(join(folder, "lock"));
  try {
    for (const name of readdirSync(folder)) if (name.endsWith(".tmp")) rmSync(join(folder, name), { force: true });
    if (existsSync(configPath)) refuseOtherConfig(dir, configPath, config);
    else writeFileAtomic(configPath, stringify(config));
    dropTornLine(logPath);
    const state = readState(folder);
    return {
      dir: folder,
      state,
      log: (line) => appendFileSync(logPath, `${JSON.stringify(line)}\n`),
      truncateLog: (keep) => {
        const lines = readLog(folder);
        const kept = lines.filter(keep);
        if (kept.length < lines.length) {
          writeFileAtomic(logPath, kept.map((line) => `${JSON.stringify(line)}\n`).join(""));
        }
      },
      finishStage: (stage, result) => {
        state.stages[stage] = result;
        writeFileAtomic(statePath, `${JSON.stringify(state, null, 2)}\n`);
      },
      close: release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** The steps of a run so far. Needs no lock; a last line that is still being written is left out. */
export function readLog(dir: string): LogLine[] {
  const path = join(dir, "log.jsonl");
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as LogLine;
    } catch {
      throw new UserError(`${path}:${i + 1}: not a line of JSON. Remove that line, or the run's folder to start over`);
    }
  });
}

/** The stages that are done: none before the first has ended. Needs no lock. */
export function readState(dir: string): RunState {
  const path = join(dir, "state.json");
  if (!existsSync(path)) return { stages: {} };
  try {
    return JSON.parse(readFileSync(path, "utf8")) as RunState;
  } catch {
    throw new UserError(`${path}: not the JSON that heddle wrote. Remove the run's folder to start over`);
  }
}

/** A kill in the middle of an append leaves a last line without its end. */
function dropTornLine(path: string): void {
  if (!existsSync(path)) return;
  const wholeBytes = readFileSync(path).lastIndexOf("\n") + 1;
  if (wholeBytes < statSync(path).size) truncateSync(path, wholeBytes);
}

/** A typing error in output_dir must not scatter a run over somebody's folder. */
function refuseOtherFolders(dir: string, folder: string): void {
  if (!existsSync(folder)) return;
  if (!statSync(folder).isDirectory()) throw new UserError(`output_dir: ${dir} is a file, expected a folder`);
  const names = readdirSync(folder).filter((name) => name !== "lock" && !name.endsWith(".tmp"));
  if (names.length > 0 && !names.includes("config.yaml")) {
    throw new UserError(`output_dir: ${dir} holds files that are not a run's (no config.yaml). Set another output_dir`);
  }
}

function refuseOtherConfig(dir: string, path: string, config: object): void {
  const there = parseYaml(dir, path);
  const here = parse(stringify(config)) as unknown;
  const differences = differingKeys(there, here);
  if (differences.length === 0) return;
  const shown = differences.slice(0, 5).map(({ key, a, b }) => `${key} is ${show(a)} there and ${show(b)} here`);
  const more = differences.length > shown.length ? [`and ${differences.length - shown.length} more`] : [];
  throw new UserError(
    `${path}: this run was started with another config: ${[...shown, ...more].join(", ")}. ` +
      `Set another output_dir, or remove ${dir} to start over`,
  );
}

function parseYaml(dir: string, path: string): unknown {
  try {
    return parse(readFileSync(path, "utf8"));
  } catch {
    throw new UserError(
      `${path}: not the YAML that heddle wrote. Set another output_dir, or remove ${dir} to start over`,
    );
  }
}

interface Difference {
  key: string;
  a: unknown;
  b: unknown;
}

/** The dotted keys whose values differ, in the order of the first config, then those that only the second has. */
function differingKeys(a: unknown, b: unknown, prefix = ""): Difference[] {
  if (isDeepStrictEqual(a, b)) return [];
  if (!isMapping(a) || !isMapping(b)) return [{ key: prefix === "" ? "the config" : prefix, a, b }];
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].flatMap((key) => differingKeys(a[key], b[key], prefix === "" ? key : `${prefix}.${key}`));
}

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const show = (value: unknown) => (value === undefined ? "not set" : JSON.stringify(value));
