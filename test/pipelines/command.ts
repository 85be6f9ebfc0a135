/** The program as a user starts it, and tasks as a script calls them. */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { packageRoot } from "../../config/paths.js";
import type { TaskContext, TaskEvent } from "../../pipelines/events.js";

const bin = fileURLToPath(new URL("bin/heddle.js", packageRoot));

/** A new folder under the system's temporary one. */
export const newFolder = (): string => mkdtempSync(join(tmpdir(), "heddle-command-"));

/** Starts bin/heddle.js in a folder. It must be compiled. */
export const startHeddle = (cwd: string, ...args: string[]): ChildProcess =>
  spawn(process.execPath, [bin, ...args], { cwd, stdio: ["ignore", "pipe", "pipe"] });

type Ended = { code: number; stdout: string; stderr: string };

/** Runs bin/heddle.js in a folder until it ends. */
export const heddle = (cwd: string, ...args: string[]): Promise<Ended> => ended(startHeddle(cwd, ...args));

/** Starts it with a stdin to write to. */
export const startReading = (cwd: string, ...args: string[]): ChildProcessWithoutNullStreams =>
  spawn(process.execPath, [bin, ...args], { cwd });

/** Runs it with a text on its stdin, which is then closed. */
export function heddleReading(stdin: string, cwd: string, ...args: string[]): Promise<Ended> {
  const child = startReading(cwd, ...args);
  child.stdin.end(stdin);
  return ended(child);
}

async function ended(child: ChildProcess): Promise<Ended> {
  const text = async (stream: NodeJS.ReadableStream) => {
    let all = "";
    for await (const chunk of stream.setEncoding("utf8")) all += chunk;
    return all;
  };
  const code = new Promise<number>((resolve) => child.once("close", resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout!), text(child.stderr!)]);
  return { code: await code, stdout, stderr };
}

/** What a task is given, with what it told and a way to stop it. */
export function taskContext(): TaskContext & { events: TaskEvent[]; stop: AbortController } {
  const events: TaskEvent[] = [];
  const stop = new AbortController();
  return { events, stop, signal: stop.signal, emit: (event) => events.push(event), breathe: async () => {} };
}

/** Writes rows as JSONL to `rows.jsonl` in a new folder, and says where results may go. */
export function rowsFile(rows: readonly object[]): { dir: string; data: string; out: string } {
  const dir = newFolder();
  const data = join(dir, "rows.jsonl");
  writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return { dir, data, out: join(dir, "out.jsonl") };
}

export const readJsonl = <Row>(path: string): Row[] =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);
