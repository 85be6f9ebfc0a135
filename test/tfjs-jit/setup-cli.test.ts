// `node tfjs-jit/dist/setup-cli.js`, compiled: exit codes and what is printed where. None of these comes as far as the link.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { type FakeMachine, fakeMachine } from "./fake-machine.js";

const cli = fileURLToPath(new URL("../../tfjs-jit/dist/setup-cli.js", import.meta.url));

/** Runs it with only the fake machine's programs on PATH; `signal` is sent when pip has begun. */
async function run(args: string[], machine: FakeMachine = fakeMachine(), signal?: NodeJS.Signals) {
  const child = spawn(process.execPath, [cli, ...args], {
    env: { ...machine.plan.env, HEDDLE_CACHE: machine.plan.cache },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (text) => {
    stdout += text;
  });
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  const timer = setInterval(() => {
    if (!signal || !machine.calls().includes("download")) return;
    clearInterval(timer);
    child.kill(signal);
  }, 20);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearInterval(timer);
  return { code, stdout, stderr };
}

const usage = "usage: npm run setup [-- --cpu | --gpu]   (default: gpu where an NVIDIA driver answers)";

describe("setup-cli", () => {
  test("--help prints the usage", async () => {
    expect(await run(["--help"])).toEqual({ code: 0, stdout: `${usage}\n`, stderr: "" });
  });

  test("a flag it does not know is bad input", async () => {
    expect(await run(["--tpu"])).toEqual({ code: 2, stdout: "", stderr: `error: --tpu: ${usage}\n` });
  });

  test("--cpu and --gpu exclude each other", async () => {
    const stderr = `error: --cpu and --gpu exclude each other. ${usage}\n`;
    expect(await run(["--cpu", "--gpu"])).toEqual({ code: 2, stdout: "", stderr });
  });

  test("what the user can mend is one line on stderr and exit code 2", async () => {
    const { code, stdout, stderr } = await run(["--cpu"], fakeMachine(["python3"]));
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^error: no C\+\+ compiler: [^\n]*\n$/);
  });

  test("a failed download says first what was begun", async () => {
    const machine = fakeMachine();
    machine.plan.env.FAKE_PIP = "ERROR: 403 Client Error: Forbidden";
    expect(await run(["--cpu"], machine)).toEqual({
      code: 2,
      stdout: `downloading TensorFlow 2.21.0 (CPU), 274 MB, to ${machine.plan.cache}\n`,
      stderr:
        "error: pip cannot download tensorflow-cpu 2.21.0: 403 Client Error: Forbidden. Run npm run setup again.\n",
    });
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s stops it with exit code 75", async (signal) => {
    const machine = fakeMachine();
    machine.plan.env.FAKE_PIP = "slow";
    const { code, stderr } = await run(["--cpu"], machine, signal);
    expect(code).toBe(75);
    expect(stderr).toBe("\ninterrupted; npm run setup goes on from here\n");
  });
});
