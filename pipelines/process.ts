/**
 * The parent's side of the two processes. A call into TensorFlow blocks the event loop until it returns, so TensorFlow
 * lives in a child that takes plain messages, while this process goes on answering the terminal, signals and HTTP.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { compiledModule } from "../config/paths.js";
import { ChildCrash, InterruptedError } from "./errors.js";
import type { OnEvent } from "./events.js";
import { forEachLine } from "./lines.js";
import { type FromChild, fromPlainError, type ToChild } from "./messages.js";

/** The modules of pipelines/tasks. */
export type TaskName = "sft" | "distill" | "rl" | "warp" | "generate" | "score" | "eval" | "chat" | "serve";

export interface TaskOptions {
  onEvent?: OnEvent;
  /** Asks the task to stop after its step; what has not stopped `graceMs` later is killed. */
  signal?: AbortSignal;
  /** Kills at once: the state on disk is whole at every instant. */
  killSignal?: AbortSignal;
  graceMs?: number;
}

const defaultGraceMs = 3500;
/** How long the child may take to leave once its work is done. */
const leaveMs = 2000;
const keptLines = 10;

/**
 * Runs a task in a process of its own. `task` is a name, or the URL of a compiled module with the same export.
 * Rejects with the task's own error (name, message and stack of the child), with the signal's reason when it was stopped,
 * or with a ChildCrash.
 */
export async function runTask<Result>(
  task: TaskName | URL,
  params: unknown,
  { onEvent = toStderr, signal, killSignal, graceMs = defaultGraceMs }: TaskOptions = {},
): Promise<Result> {
  signal?.throwIfAborted();
  killSignal?.throwIfAborted();
  let answer: FromChild | undefined;
  const child = startChild(onEvent, (message) => {
    answer = message;
    child.killAfter(leaveMs);
  });
  const stop = () => child.stop(graceMs);
  signal?.addEventListener("abort", stop);
  killSignal?.addEventListener("abort", child.kill);
  try {
    child.send({ type: "start", kind: "run", url: moduleOf(task).href, params });
    const crash = await child.exited;
    if (answer?.type === "result") return answer.value as Result;
    if (answer?.type === "error") throw fromPlainError(answer.error);
    if (signal?.aborted) throw signal.reason;
    if (killSignal?.aborted) throw killSignal.reason;
    throw answer?.type === "stopped" ? new InterruptedError("SIGTERM") : crash;
  } finally {
    signal?.removeEventListener("abort", stop);
    killSignal?.removeEventListener("abort", child.kill);
  }
}

export interface Host {
  /** Resolves when the host can answer; rejects with the reason why it cannot. */
  ready: Promise<void>;
  /** The reply to one message. Rejects with the host's own error, or with what ended the host. */
  request<Reply>(message: unknown): Promise<Reply>;
  /** Ends the child: what is not answered by now is rejected. Resolves when it is gone. */
  close(): Promise<void>;
  /** Resolves when the child is gone: with undefined after close(), else with what ended it. */
  exited: Promise<Error | undefined>;
}

/** Starts a long-lived child that answers requests: `task` exports open(params, context), which returns the answerer. */
export function startHost(task: TaskName | URL, params: unknown, onEvent: OnEvent = toStderr): Host {
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let ended: Error | undefined;
  let closing = false;
  let nextId = 1;
  const expect = (id: number) =>
    new Promise<unknown>((resolve, reject) => {
      if (ended === undefined) waiting.set(id, { resolve, reject });
      else reject(ended);
    });
  const settle = (id: number, how: (waiter: { resolve(value: unknown): void; reject(error: Error): void }) => void) => {
    const waiter = waiting.get(id);
    waiting.delete(id);
    if (waiter !== undefined) how(waiter);
  };

  const openId = 0;
  const child = startChild(onEvent, (message) => {
    if (message.type === "result") settle(openId, ({ resolve }) => resolve(undefined));
    if (message.type === "reply") settle(message.id, ({ resolve }) => resolve(message.value));
    if (message.type !== "error") return;
    const error = fromPlainError(message.error);
    if (message.id === undefined) ended ??= error;
    settle(message.id ?? openId, ({ reject }) => reject(error));
  });
  const exited = child.exited.then((crash) => {
    ended ??= closing ? new Error("the host was closed") : crash;
    for (const id of waiting.keys()) settle(id, ({ reject }) => reject(ended!));
    return closing ? undefined : ended;
  });
  const ready = expect(openId).then(() => {});
  ready.catch(() => {}); // Told through `exited` and the requests, too.
  child.send({ type: "start", kind: "open", url: moduleOf(task).href, params });

  return {
    ready,
    exited,
    request: <Reply>(message: unknown) => {
      const id = nextId++;
      const reply = expect(id) as Promise<Reply>;
      if (ended === undefined) child.send({ type: "request", id, message });
      return reply;
    },
    close: async () => {
      closing = true;
      child.stop(defaultGraceMs);
      await exited;
    },
  };
}

const moduleOf = (task: TaskName | URL): URL =>
  task instanceof URL ? task : compiledModule(`pipelines/tasks/${task}.js`);

const toStderr: OnEvent = (event) => {
  if (event.type === "note" || event.type === "output") process.stderr.write(`${event.text}\n`);
};

interface Child {
  send(message: ToChild): void;
  stop(graceMs: number): void;
  kill(): void;
  killAfter(ms: number): void;
  /** Resolves once the child is gone and all that it said was heard, with the error to use if it left no answer. */
  exited: Promise<ChildCrash>;
}

function startChild(onEvent: OnEvent, onMessage: (message: FromChild) => void): Child {
  const child = fork(compiledModule("pipelines/child.js"), {
    serialization: "advanced",
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    execArgv: [],
  });
  const lastLines: string[] = [];
  const onLine = (text: string) => {
    lastLines.push(text);
    if (lastLines.length > keptLines) lastLines.shift();
    onEvent({ type: "output", text });
  };
  const output = Promise.all([forEachLine(child.stdout!, onLine), forEachLine(child.stderr!, onLine)]);
  child.on("message", (message: FromChild) => {
    if (message.type === "event") onEvent(message.event);
    else onMessage(message);
  });

  let timer: NodeJS.Timeout | undefined;
  const kill = () => {
    child.kill("SIGKILL");
  };
  const killAfter = (ms: number) => {
    timer ??= setTimeout(kill, ms);
  };
  const exited = exitOf(child).then(
    async ([code, signal]) => {
      clearTimeout(timer);
      // A compiler that the child had started may hold its pipes for longer than the child lives.
      await Promise.race([output, sleep(500, undefined, { ref: false })]);
      return new ChildCrash(crashMessage(code, signal, lastLines));
    },
    (error) => new ChildCrash(`the process that runs TensorFlow could not be started: ${error.message}`),
  );
  return {
    // The callback takes the error of a child that is gone; `exited` tells of it.
    send: (message) => {
      child.send(message, () => {});
    },
    stop: (graceMs) => {
      if (child.connected) child.send({ type: "stop" } satisfies ToChild, () => {});
      killAfter(graceMs);
    },
    kill,
    killAfter,
    exited,
  };
}

/** Code and signal. Messages may arrive after the exit itself: the channel is empty when it disconnects. */
async function exitOf(child: ChildProcess): Promise<[number | null, NodeJS.Signals | null]> {
  const disconnected = new Promise<void>((resolve) => child.once("disconnect", resolve));
  const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  if (child.connected) await Promise.race([disconnected, sleep(500, undefined, { ref: false })]);
  return [code, signal];
}

function crashMessage(code: number | null, signal: NodeJS.Signals | null, lastLines: readonly string[]): string {
  const how = signal === null ? `ended with code ${code}` : `was killed by ${signal}`;
  const why = signal === "SIGKILL" ? " (Linux does that to a process when memory runs out)" : "";
  const words = lastLines.length === 0 ? "It wrote nothing to stderr" : `Its last lines:\n  ${lastLines.join("\n  ")}`;
  return `the process that runs TensorFlow ${how}${why}. ${words}`;
}
