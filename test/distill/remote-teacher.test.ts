/** Distillation from `heddle serve`: ten steps give the losses and the weights that a teacher in this process gives. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { stringify } from "yaml";
import { loadConfig } from "../../pipelines/config.js";
import { type LogLine, readLog } from "../../pipelines/run-folder.js";
import { run as runDistill } from "../../pipelines/tasks/distill.js";
import { fixture } from "../model/golden.js";
import { newFolder, startHeddle, taskContext } from "../pipelines/command.js";
import { changes, readModel } from "../pipelines/training-run.js";

const teacher = fixture("arithmetic/teacher");
const student = fixture("arithmetic/student");
const steps = 10;

let server: ChildProcess;
afterAll(() => {
  server.kill("SIGKILL");
  vi.unstubAllEnvs();
});

/** Starts the server on a port (0: a free one), and gives its address once it is ready. */
async function serve(port: string): Promise<string> {
  server = startHeddle(".", "serve", "--model", teacher, "--port", port);
  for await (const line of createInterface(server.stderr!)) {
    const address = /^ready: (http:\S+)\/v1\/completions/.exec(line)?.[1];
    if (address !== undefined) return address;
  }
  throw new Error(`heddle serve ended with ${server.exitCode}`);
}

/** Kills the server, and starts it again at the same address. */
async function restart(address: string): Promise<void> {
  server.kill("SIGKILL");
  await once(server, "exit");
  expect(await serve(new URL(address).port)).toBe(address);
}

type Distilled = { log: LogLine[]; model: Awaited<ReturnType<typeof readModel>>; notes: string[] };

/** Distils with the whole vocabulary; `onStep` is told of each step. */
async function distilled(from: string, onStep = (_step: number) => {}): Promise<Distilled> {
  const dir = newFolder();
  const path = join(dir, "run.yaml");
  const config = {
    model: student,
    teacher: from,
    train_data: fixture("arithmetic/train.jsonl"),
    output_dir: join(dir, "run"),
    max_new_tokens: 4,
    distill: { steps, batch_size: 4, learning_rate: 1e-3, beta: 0.5, loss_top_k: 0 },
  };
  writeFileSync(path, stringify(config));
  const notes: string[] = [];
  const context = taskContext();
  await runDistill(await loadConfig(path, { set: [], command: "distill" }), {
    ...context,
    emit: (event) => {
      if (event.type === "note") notes.push(event.text);
      if (event.type === "step") onStep(event.step);
    },
  });
  return { log: readLog(config.output_dir), model: await readModel(join(config.output_dir, "distill")), notes };
}

let local: Distilled;
let address: string;
beforeAll(async () => {
  // The server is started with the same environment.
  vi.stubEnv("HEDDLE_JIT", "0");
  [local, address] = await Promise.all([distilled(teacher), serve("0")]);
});

function expectSame(remote: Distilled): void {
  expect(remote.log.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  for (const [i, { loss }] of local.log.entries()) {
    expect(Math.abs((remote.log[i]!.loss as number) - (loss as number)), `loss of step ${i + 1}`).toBeLessThan(1e-4);
  }
  for (const [name, difference] of Object.entries(changes(local.model.weights, remote.model.weights))) {
    expect(difference, name).toBeLessThan(1e-4);
  }
}

describe("heddle serve as a teacher", () => {
  test("gives the losses and the weights of a teacher in this process", async () => {
    const remote = await distilled(address);
    expect(remote.notes).toEqual([]);
    expectSame(remote);
    const { weights } = await readModel(student);
    for (const [name, change] of Object.entries(changes(weights, local.model.weights))) {
      expect(change, name).toBeGreaterThan(1e-3);
    }
  });

  test("killed in the middle and started again, it costs nothing but time", async () => {
    let restarting = Promise.resolve();
    const remote = await distilled(address, (step) => {
      if (step === 4) restarting = restart(address);
    });
    await restarting;
    expect(remote.notes).toEqual([
      expect.stringMatching(`^POST ${address}/v1/completions: .*; trying again for 120 s$`),
    ]);
    expectSame(remote);
  });
});
