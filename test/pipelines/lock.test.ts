import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { compiledModule } from "../../config/paths.js";
import { UserError } from "../../pipelines/errors.js";
import { takeLock } from "../../pipelines/lock.js";

const newLock = () => join(mkdtempSync(join(tmpdir(), "heddle-lock-")), "lock");
const holders: ChildProcess[] = [];
afterEach(() => {
  for (const holder of holders.splice(0)) holder.kill("SIGKILL");
});

async function heldElsewhere(path: string): Promise<ChildProcess> {
  const holder = spawn(process.execPath, [fileURLToPath(compiledModule("test/pipelines/lock-holder.js")), path]);
  holders.push(holder);
  await once(holder.stdout!, "data");
  return holder;
}

describe("takeLock", () => {
  test("gives the lock back", async () => {
    const path = newLock();
    const release = await takeLock(path);
    expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ pid: process.pid, parent: process.ppid });
    release();
    expect(existsSync(path)).toBe(false);
    (await takeLock(path))();
  });

  test("names the process that holds it", async () => {
    const path = newLock();
    const { pid } = await heldElsewhere(path);
    await expect(takeLock(path)).rejects.toThrow(
      new UserError(
        `${path}: process ${pid} is writing this run. Wait for it or stop it (kill ${pid}), or set another output_dir`,
      ),
    );
  });

  test("is taken over from a process that was killed", async () => {
    const path = newLock();
    const holder = await heldElsewhere(path);
    holder.kill("SIGKILL");
    await once(holder, "exit");
    expect(existsSync(path)).toBe(true);
    (await takeLock(path))();
  });

  test("is taken over when the pid was given to another process since", async () => {
    const path = newLock();
    const holder = { pid: process.pid, parent: process.ppid, started: 1, host: hostname() };
    writeFileSync(path, JSON.stringify(holder));
    (await takeLock(path))();
  });

  test("waits for a process whose parent is dead, since it ends by itself", async () => {
    const path = newLock();
    const holder = await heldElsewhere(path);
    const text = JSON.parse(readFileSync(path, "utf8"));
    const dead = spawn(process.execPath, ["-e", ""]);
    await once(dead, "exit");
    writeFileSync(path, JSON.stringify({ ...text, parent: dead.pid }));
    setTimeout(() => holder.kill("SIGKILL"), 500);
    const startMs = performance.now();
    (await takeLock(path))();
    expect(performance.now() - startMs).toBeGreaterThan(400);
  });

  test("is never taken from another machine", async () => {
    const path = newLock();
    writeFileSync(path, JSON.stringify({ pid: 1, parent: 1, started: 1, host: "node-17" }));
    await expect(takeLock(path)).rejects.toThrow(
      new UserError(`${path}: process 1 on node-17 is writing this run. If it is no longer running, remove this file`),
    );
  });

  test("refuses a file that is no lock", async () => {
    const path = newLock();
    writeFileSync(path, "hello");
    await expect(takeLock(path)).rejects.toThrow(
      new UserError(`${path}: not a lock file that heddle wrote. If no heddle runs here, remove it`),
    );
  });

  test("one of many that find a dead lock gets it", async () => {
    const path = newLock();
    writeFileSync(path, JSON.stringify({ pid: process.pid, parent: process.ppid, started: 1, host: hostname() }));
    const script = fileURLToPath(compiledModule("test/pipelines/lock-holder.js"));
    const outcomes = await Promise.all(
      Array.from({ length: 6 }, async () => {
        const holder = spawn(process.execPath, [script, path]);
        holders.push(holder);
        const locked = once(holder.stdout, "data").then(() => "locked");
        return Promise.race([locked, once(holder, "exit").then(() => "refused")]);
      }),
    );
    expect(outcomes.filter((outcome) => outcome === "locked")).toHaveLength(1);
  });
});
