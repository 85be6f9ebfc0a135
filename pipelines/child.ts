/** The process that owns TensorFlow: started by process.ts, takes one task, speaks in plain messages. */
import { setImmediate } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { onCompile } from "tfjs-jit/compilations";
import { compiledModule } from "../config/paths.js";
import type { HostModule, TaskContext, TaskModule } from "./events.js";
import { type FromChild, type ToChild, toPlainError } from "./messages.js";

const stop = new AbortController();
const context: TaskContext = {
  emit: (event) => send({ type: "event", event }),
  signal: stop.signal,
  breathe: async () => {
    // A message is read between two turns of the event loop, and the first one may be under way.
    await setImmediate();
    await setImmediate();
  },
};
/** Of a host: what open() returned, once it has. Requests may come before. */
let opening: Promise<(message: unknown) => Promise<unknown>> | undefined;

/** Compiling is where the first minute of a run goes; what takes less is not worth a line. */
const TOLD_SECONDS = 0.5;
onCompile(({ name, seconds, isFromDisk }) => {
  if (!isFromDisk && seconds >= TOLD_SECONDS) context.emit({ type: "compile", what: name, seconds });
});

process.on("message", (message: ToChild) => {
  if (message.type === "start") void start(message);
  if (message.type === "request") void reply(message.id, message.message);
  if (message.type === "stop") {
    stop.abort();
    if (opening !== undefined) process.exit(0);
  }
});
process.on("disconnect", () => process.exit(1));
new Worker(compiledModule("pipelines/orphan-watch.js"), { workerData: process.ppid }).unref();

// A terminal sends these to parent and child alike: the parent decides, and says "stop".
process.on("SIGINT", () => {});
process.on("SIGHUP", () => {});
process.on("SIGTERM", () => stop.abort());
process.on("uncaughtException", fail);

async function start({ kind, url, params }: ToChild & { type: "start" }): Promise<void> {
  try {
    if (kind === "run") {
      const { run } = (await import(url)) as TaskModule;
      leave({ type: "result", value: await run(params, context) }, 0);
    } else {
      opening = import(url).then(({ open }: HostModule) => open(params, context));
      await opening;
      send({ type: "result", value: undefined });
    }
  } catch (error) {
    if (error === stop.signal.reason) leave({ type: "stopped" }, 0);
    else fail(error);
  }
}

async function reply(id: number, message: unknown): Promise<void> {
  try {
    const answer = await opening!;
    send({ type: "reply", id, value: await answer(message) });
  } catch (error) {
    send({ type: "error", id, error: toPlainError(error) });
  }
}

function fail(error: unknown): void {
  leave({ type: "error", error: toPlainError(error) }, 1);
}

/** The process may end only after its last message was written. */
function leave(message: FromChild, code: number): void {
  process.send?.(message, () => process.exit(code));
}

/** The callback takes the error of a parent that is gone: "disconnect" tells of it. */
function send(message: FromChild): void {
  process.send?.(message, () => {});
}
