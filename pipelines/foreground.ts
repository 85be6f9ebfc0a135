/** Runs one task for a command: progress on stderr, Ctrl-C in two steps. */
import { ChildCrash, InterruptedError } from "./errors.js";
import { runTask, type TaskName } from "./process.js";
import { startProgress } from "./progress.js";

export interface ForegroundOptions {
  /** A stage saves its state and goes on from there; anything else has nothing to save and is stopped at once. */
  isResumable: boolean;
}

const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** npx passes on a Ctrl-C that the terminal has already delivered: that is not a second one. */
const sameKeyMs = 500;

/** The task's result. Rejects with an InterruptedError after Ctrl-C, SIGTERM or a closed terminal. */
export async function runInForeground<Result>(
  task: TaskName | URL,
  params: unknown,
  { isResumable }: ForegroundOptions,
): Promise<Result> {
  const progress = startProgress();
  const stop = new AbortController();
  const kill = new AbortController();
  let firstMs: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    const reason = new InterruptedError(signal, isResumable);
    if (!isResumable) {
      kill.abort(reason);
    } else if (firstMs === undefined) {
      firstMs = Date.now();
      progress.onEvent({ type: "note", text: "stopping after this step (Ctrl-C again to stop at once)" });
      stop.abort(reason);
    } else if (Date.now() - firstMs > sameKeyMs) {
      kill.abort(reason);
    }
  };
  for (const signal of stopSignals) process.on(signal, onSignal);
  try {
    return await runTask(task, params, { onEvent: progress.onEvent, signal: stop.signal, killSignal: kill.signal });
  } catch (error) {
    if (error instanceof InterruptedError) throw new InterruptedError(error.signal, isResumable);
    if (error instanceof ChildCrash && isResumable) {
      throw new ChildCrash(`${error.message}\nWhat was saved is whole: run the same command again to go on`);
    }
    throw error;
  } finally {
    for (const signal of stopSignals) process.off(signal, onSignal);
    progress.stop();
  }
}
