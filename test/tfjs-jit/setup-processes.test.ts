// Set-up in several processes, and killed at any moment. These run the compiled set-up (npm run build).

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { clearLeftovers, withLock } from "../../tfjs-jit/src/setup-lock.js";
import { runSetup } from "../../tfjs-jit/src/setup-steps.js";
import { type FakeMachine, fakeMachine, setupScript } from "./fake-machine.js";

/** Starts set-up in a process group of its own, so that a test can kill it with pip and the compiler. */
function start(machine: FakeMachine): { child: ChildProcess; did: Promise<string> } {
  const child = spawn(process.execPath, [setupScript(machine)], {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const did = new Promise<string>((resolve) => {
    let text = "";
    child.stdout!.on("data", (chunk) => {
      text += chunk;
    });
    child.on("close", () => resolve(text.trim()));
  });
  return { child, did };
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); await sleep(10)) {
    if (Date.now() > deadline) throw new Error("waited 10 s in vain");
  }
}

const slow = (env: Record<string, string>): FakeMachine => {
  const machine = fakeMachine();
  Object.assign(machine.plan.env, env);
  return machine;
};

/** Nothing but whole folders: no lock, no temporary folder. */
function expectTidy({ plan }: FakeMachine): void {
  expect(readdirSync(join(plan.cache, "tmp"))).toEqual([]);
  expect(readdirSync(plan.cache).filter((name) => name.includes(".lock"))).toEqual([]);
}

describe("set-ups at the same time", () => {
  test("do the work once: the second waits for the first", async () => {
    const machine = slow({ FAKE_PIP: "slow" });
    const runs = [start(machine), start(machine), start(machine)];
    const did = await Promise.all(runs.map((run) => run.did));
    expect(machine.calls()).toEqual(["download", "compile"]);
    expect(did.filter((text) => text.includes("downloaded"))).toHaveLength(1);
    expect(did.every((text) => text.startsWith("["))).toBe(true);
    expectTidy(machine);
  });

  test("in one process share the work, too", async () => {
    const { plan, calls, lines } = fakeMachine();
    await Promise.all([runSetup(plan), runSetup(plan)]);
    expect(calls()).toEqual(["download", "compile"]);
    expect(lines).toContain(`waiting for another set-up (process ${process.pid})`);
  });
});

describe("a set-up that was killed", () => {
  test.each([
    ["downloading", { FAKE_PIP: "slow" }, ["download", "download", "compile"]],
    ["compiling", { FAKE_CXX: "slow" }, ["download", "compile", "compile"]],
  ])("while %s leaves what the next one clears and does again", async (_, env, calls) => {
    const machine = slow(env);
    const { child, did } = start(machine);
    const tool = Object.keys(env)[0] === "FAKE_PIP" ? "download" : "compile";
    await until(() => machine.calls().includes(tool));
    process.kill(-child.pid!, "SIGKILL");
    await did;
    expect(readdirSync(join(machine.plan.cache, "tmp"))).not.toEqual([]);
    expect(existsSync(machine.plan.link)).toBe(false);

    const next = await runSetup({ ...machine.plan, env: { ...machine.plan.env, FAKE_PIP: "ok", FAKE_CXX: "ok" } });
    expect(next.did).toContain("linked");
    expect(machine.calls()).toEqual(calls);
    expectTidy(machine);
  });

  test("at any of twenty moments does not keep the next one from succeeding", async () => {
    const machine = fakeMachine();
    for (let moment = 0; moment < 20; moment++) {
      const { child, did } = start(machine);
      await sleep(40 + 15 * moment);
      try {
        process.kill(-child.pid!, "SIGKILL");
      } catch {
        // It was done already.
      }
      await did;
    }
    await runSetup(machine.plan);
    expect((await runSetup(machine.plan)).did).toEqual([]);
    expectTidy(machine);
  });
});

test("an interrupted set-up stops pip and leaves nothing", async () => {
  const machine = slow({ FAKE_PIP: "slow" });
  const interrupt = new AbortController();
  const run = runSetup({ ...machine.plan, signal: interrupt.signal });
  await until(() => machine.calls().includes("download"));
  interrupt.abort();
  await expect(run).rejects.toThrow(expect.objectContaining({ name: "AbortError" }));
  expectTidy(machine);
});

describe("what another machine left in a shared cache", () => {
  const other = "0123456789ab-1-1-0";
  const hour = 60 * 60;

  test("is cleared when it is older than an hour", async () => {
    const { plan } = fakeMachine();
    const folder = join(plan.cache, "tmp", other);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "half"), "half");
    await clearLeftovers(plan.cache);
    expect(existsSync(folder)).toBe(true);
    const old = Date.now() / 1000 - hour - 1;
    utimesSync(folder, old, old);
    await clearLeftovers(plan.cache);
    expect(existsSync(folder)).toBe(false);
  });

  test("holds a lock until then", async () => {
    const { folder } = fakeMachine();
    const lock = join(folder, "x.lock");
    symlinkSync(other, lock);
    const signal = AbortSignal.timeout(300);
    const pids: string[] = [];
    const options = { signal, onWait: (pid: string) => pids.push(pid) };
    await expect(withLock(lock, options, async () => {})).rejects.toThrow();
    expect(pids).toEqual(["1"]);
  });
});
