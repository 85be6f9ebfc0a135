/** Work of this process whose progress is bytes: a bar of megabytes, and Ctrl-C between two parts of the work. */

/** What to do after an interruption of work that goes on by itself where it stopped. */
export const SAME_COMMAND = "run the same command again to go on";

interface ByteRun {
  /** How many bytes are done, and of how many. The first call tells what was done before. */
  readonly onProgress: (done: number, total: number) => void;
  readonly onNote: (text: string) => void;
  readonly signal: AbortSignal;
}

/** `howToGoOn` is said after an interruption, where what was done is kept. */
export async function withByteProgress<Result>(
  stage: string,
  howToGoOn: string | undefined,
  work: (run: ByteRun) => Promise<Result>,
): Promise<Result> {
  const [{ startProgress }, { InterruptedError }] = await Promise.all([import("./progress.js"), import("./errors.js")]);
  const progress = startProgress();
  const stop = new AbortController();
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  const onSignal = (signal: NodeJS.Signals) =>
    stop.abort(new InterruptedError(signal, howToGoOn !== undefined, howToGoOn));
  for (const signal of signals) process.on(signal, onSignal);
  const beganMs = performance.now();
  let first: number | undefined;
  const onProgress = (stored: number, total: number) => {
    const [unit, size] = total < 1e7 ? ["kB", 1e3] : ["MB", 1e6];
    const [done, steps] = [Math.floor(stored / size), Math.ceil(total / size)];
    if (first === undefined) {
      first = stored;
      progress.onEvent({ type: "stage", stage, steps, done, unit });
    } else if (stored < total) {
      const metrics = { bytes_per_second: (1000 * (stored - first)) / (performance.now() - beganMs) };
      progress.onEvent({ type: "step", stage, step: done, metrics });
    } else {
      progress.onEvent({ type: "stage", stage, steps, done: steps, unit });
    }
  };
  try {
    return await work({ signal: stop.signal, onProgress, onNote: (text) => progress.onEvent({ type: "note", text }) });
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
    progress.stop();
  }
}
