/** A task and a host that need no TensorFlow: they do what their parameters say. Run from dist by the tests. */
import { appendFileSync } from "node:fs";
import { UserError } from "../../pipelines/errors.js";
import type { TaskContext } from "../../pipelines/events.js";

export type StubParams =
  /** Computes without a break for `stepMs` a step, as TensorFlow does; appends each step to `file`. */
  | { does: "steps"; steps: number; stepMs: number; file?: string }
  | { does: "return"; value: unknown }
  | { does: "throw"; name: string; message: string; code?: string }
  | { does: "throw user error" }
  | { does: "write"; stdout: string; stderr: string }
  | { does: "die"; signal: NodeJS.Signals; lastWords: string }
  | { does: "exit"; code: number }
  | { does: "environment"; keys: string[] };

export async function run(params: StubParams, context: TaskContext): Promise<unknown> {
  switch (params.does) {
    case "steps":
      return computeSteps(params, context);
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
    case "environment":
      return params.keys.map((key) => process.env[key]);
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
