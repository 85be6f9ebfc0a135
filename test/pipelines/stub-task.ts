/** A task and a host that need no TensorFlow: they do what their parameters say. Run from dist by the tests. */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../../pipelines/errors.js";
import type { TaskContext } from "../../pipelines/events.js";
import { writeFileAtomic } from "../../pipelines/files.js";
import { openRun } from "../../pipelines/run-folder.js";

export type StubParams =
  /** Computes without a break for `stepMs` a step, as TensorFlow does; appends each step to `file`. */
  | { does: "steps"; steps: number; stepMs: number; file?: string }
  /** A run that logs each step, saves every other step and goes on from there. */
  | { does: "run"; dir: string; steps: number; stepMs: number }
  | { does: "return"; value: unknown }
  | { does: "throw"; name: string; message: string; code?: string }
  | { does: "throw user error" }
  | { does: "write"; stdout: string; stderr: string }
  | { does: "die"; signal: NodeJS.Signals; lastWords: string }
  | { does: "exit"; code: number };

export async function run(params: StubParams, context: TaskContext): Promise<unknown> {
  switch (params.does) {
    case "steps":
      return computeSteps(params, context);
    case "run":
      return resumableRun(params, context);
    case "return":
      return params.value;
    case "throw":
      throw Object.assign(new Error(params.message), { name: params.name, code: params.code });
    case "throw user error":
      throw new UserError("data.jsonl:3: expected a prompt");
    case "write":
      process.stdout.write(params.stdout);
      process.stderr.write(params.stderr);
      return undefined;
    case "die":
      process.stderr.write(params.lastWords);
      process.kill(process.pid, params.signal);
      return block(10_000);
    case "exit":
      process.exit(params.code);
      break;
  }
  return undefined;
}

async function computeSteps(
  { steps, stepMs, file }: StubParams & { does: "steps" },
  { emit, signal, breathe }: TaskContext,
): Promise<number> {
  emit({ type: "stage", stage: "stub", steps, done: 0 });
  for (let step = 1; step <= steps; step++) {
    block(stepMs);
    if (file !== undefined) appendFileSync(file, `${process.pid} ${step}\n`);
    emit({ type: "step", stage: "stub", step, metrics: { loss: 1 / step, tokens_per_second: 64_000 / stepMs } });
    await breathe();
    signal.throwIfAborted();
  }
  emit({ type: "stage", stage: "stub", steps, done: steps });
  return steps;
}

async function resumableRun(
  { dir, steps, stepMs }: StubParams & { does: "run" },
  { emit, signal, breathe }: TaskContext,
): Promise<unknown> {
  const run = await openRun(dir, { steps });
  const checkpoint = join(run.dir, "checkpoint.json");
  if (run.state.stages.stub !== undefined) return run.state.stages.stub;
  // x <- 3 x + step mod 1009: each step depends on all before it.
  let saved = { step: 0, x: 1 };
  if (existsSync(checkpoint)) saved = JSON.parse(readFileSync(checkpoint, "utf8"));
  run.truncateLog((line) => line.step <= saved.step);
  emit({ type: "stage", stage: "stub", steps, done: saved.step });
  for (let { step, x } = saved; step < steps; ) {
    block(stepMs);
    step += 1;
    x = (3 * x + step) % 1009;
    run.log({ phase: "stub", step, x });
    saved = { step, x };
    if (step % 2 === 0 || signal.aborted) writeFileAtomic(checkpoint, JSON.stringify(saved));
    emit({ type: "step", stage: "stub", step, metrics: {} });
    await breathe();
    signal.throwIfAborted();
  }
  run.finishStage("stub", saved);
  emit({ type: "stage", stage: "stub", steps, done: steps });
  return saved;
}

/** What a call into TensorFlow looks like from outside: nothing else happens in this thread. */
function block(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

export interface StubRequest {
  add?: Float32Array;
  blockMs?: number;
  fail?: string;
  exit?: number;
}

export async function open(params: { failOpen?: string; base: number }, _context: TaskContext) {
  if (params.failOpen !== undefined) throw new UserError(params.failOpen);
  return async (message: unknown): Promise<Float32Array> => {
    const { add = new Float32Array(), blockMs = 0, fail, exit } = message as StubRequest;
    if (exit !== undefined) process.exit(exit);
    if (fail !== undefined) throw new RangeError(fail);
    block(blockMs);
    return add.map((x) => x + params.base);
  };
}
