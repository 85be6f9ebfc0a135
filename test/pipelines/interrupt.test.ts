/** Real signals to real processes: the terminal's Ctrl-C goes to the whole group, so each program gets a group of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { compiledModule } from "../../config/paths.js";
import { readLog, readState } from "../../pipelines/run-folder.js";
import type { StubParams } from "./stub-task.js";

interface Program {
  process: ChildProcess;
  pid: number;
  stderr(): string;
  /** Exit code and signal, and the seconds since `from`. */
  end(from?: number): Promise<{ code: number | null; signal: string | null; seconds: number }>;
}

/** What takes a moment may take longer where other processes run: of three times, once. */
const busy = { retry: 2 };

const programs: Program[] = [];
afterEach(() => {
  for (const { pid } of programs.splice(0)) signalGroup(pid, "SIGKILL");
});

function start(params: StubParams, ...flags: string[]): Program {
  const script = fileURLToPath(compiledModule("test/pipelines/stub-cli.js"));
  const child = spawn(process.execPath, [script, "run", ...flags, JSON.stringify(params)], { detached: true });
  let text = "";
  child.stderr.setEncoding("utf8").on("data", (more) => {
    text += more;
  });
  const exited = once(child, "close");
  const program: Program = {
    process: child,
    pid: child.pid!,
    stderr: () => text,
    end: async (from = performance.now()) => {
      const [code, signal] = await exited;
      return { code, signal, seconds: (performance.now() - from) / 1000 };
    },
  };
  programs.push(program);
  return program;
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // All of it is gone.
  }
}

/** "PID STEP" for each step that a stub task has computed. */
const steps = (file: string) => (existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n") : []);
const newFile = () => join(mkdtempSync(join(tmpdir(), "heddle-interrupt-")), "steps");

async function until(isTrue: () => boolean): Promise<void> {
  for (let i = 0; i < 5000 && !isTrue(); i++) await sleep(20);
  expect(isTrue()).toBe(true);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("Ctrl-C", () => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    test(`${signal} to all processes ends a resumable command after its step, with 75`, async () => {
      const file = newFile();
      const program = start({ does: "steps", steps: 100, stepMs: 300, file }, "--resumable");
      await until(() => steps(file).length >= 2);
      signalGroup(program.pid, signal);
      const seen = steps(file).length;
      expect(await program.end()).toMatchObject({ code: 75, signal: null });
      expect(steps(file).length).toBeLessThanOrEqual(seen + 1);
      expect(program.stderr()).toContain(
        "stopping after this step (Ctrl-C again to stop at once)\n" +
          `interrupted by ${signal}; run the same command again to go on\n`,
      );
    });
  }

  test("ends a child that cannot stop within 5 s", busy, async () => {
    const file = newFile();
    const program = start({ does: "steps", steps: 2, stepMs: 60_000, file }, "--resumable");
    await until(() => program.stderr().includes("stub: 2 steps"));
    signalGroup(program.pid, "SIGINT");
    const { code, seconds } = await program.end();
    expect(code).toBe(75);
    expect(seconds).toBeGreaterThan(3);
    expect(seconds).toBeLessThan(5);
  });

  test("twice ends it at once; the second that npx adds to the first is none", busy, async () => {
    const program = start({ does: "steps", steps: 2, stepMs: 60_000 }, "--resumable");
    await until(() => program.stderr().includes("stub: 2 steps"));
    signalGroup(program.pid, "SIGINT");
    await sleep(50);
    signalGroup(program.pid, "SIGINT");
    await sleep(700);
    expect(isAlive(program.pid)).toBe(true);
    signalGroup(program.pid, "SIGINT");
    expect(await program.end()).toMatchObject({ code: 75 });
  });

  test("ends a command that has nothing to resume at once, with the signal's code", busy, async () => {
    const program = start({ does: "steps", steps: 2, stepMs: 60_000 });
    await until(() => program.stderr().includes("stub: 2 steps"));
    const fromMs = performance.now();
    signalGroup(program.pid, "SIGINT");
    const { code, seconds } = await program.end(fromMs);
    expect(code).toBe(130);
    expect(seconds).toBeLessThan(1.5);
    expect(program.stderr()).toContain("interrupted by SIGINT\n");
  });

  test("SIGTERM to the child alone stops the command, too", async () => {
    const file = newFile();
    const program = start({ does: "steps", steps: 100, stepMs: 300, file }, "--resumable");
    await until(() => steps(file).length >= 1);
    process.kill(Number(steps(file)[0]!.split(" ")[0]), "SIGTERM");
    expect(await program.end()).toMatchObject({ code: 75 });
  });
});

describe("kill -9", () => {
  test("of the child: one clear error, code 1", async () => {
    const file = newFile();
    const program = start({ does: "steps", steps: 100, stepMs: 100, file }, "--resumable");
    await until(() => steps(file).length >= 2);
    process.kill(Number(steps(file)[0]!.split(" ")[0]), "SIGKILL");
    expect(await program.end()).toMatchObject({ code: 1 });
    expect(program.stderr()).toContain(
      "error: the process that runs TensorFlow was killed by SIGKILL (Linux does that to a process when memory runs out). " +
        "It wrote nothing to stderr\nWhat was saved is whole: run the same command again to go on\n",
    );
  });

  test("of the parent: the child is gone within a second, in the middle of a computation", busy, async () => {
    const file = newFile();
    const program = start({ does: "steps", steps: 100, stepMs: 1500, file });
    await until(() => steps(file).length >= 1);
    const childPid = Number(steps(file)[0]!.split(" ")[0]);
    program.process.kill("SIGKILL");
    await sleep(1000);
    expect(isAlive(childPid)).toBe(false);
  });

  test("at any instant: the run started again ends as one that was left alone", async () => {
    const alone = join(mkdtempSync(join(tmpdir(), "heddle-run-")), "alone");
    const killed = join(mkdtempSync(join(tmpdir(), "heddle-run-")), "killed");
    expect(await start({ does: "run", dir: alone, steps: 25, stepMs: 1 }, "--resumable").end()).toMatchObject({
      code: 0,
    });

    const params: StubParams = { does: "run", dir: killed, steps: 25, stepMs: 20 };
    for (const waitMs of [0, 45, 80, 15]) {
      const program = start(params, "--resumable");
      const seen = readLog(killed).length;
      await until(() => readLog(killed).length !== seen);
      await sleep(waitMs);
      // Only the parent: its child goes by itself, and the next start waits for the lock.
      program.process.kill("SIGKILL");
      await program.end();
    }
    expect(readState(killed).stages).toEqual({});
    expect(await start(params, "--resumable").end()).toMatchObject({ code: 0 });
    expect(readLog(killed)).toEqual(readLog(alone));
    expect(readState(killed)).toEqual(readState(alone));
  });
});
