/** How a stage's progress reads: the words that the bar and the plain lines share. Pure functions. */

export interface StageProgress {
  stage: string;
  steps: number;
  /** What steps are called where they are none: "MB". */
  unit?: string;
  /** Steps that are done, and that were done when this process took the stage up. */
  step: number;
  firstDone: number;
  /** What the last step reported. */
  metrics: Record<string, number>;
  startedAtMs: number;
  /** When the latest steps ended, oldest first: the speed is theirs alone, since a first step compiles. */
  marks: { step: number; atMs: number }[];
}

const keptMarks = 20;

export const beginStage = (
  stage: string,
  steps: number,
  done: number,
  nowMs: number,
  unit?: string,
): StageProgress => ({
  stage,
  steps,
  unit,
  step: done,
  firstDone: done,
  metrics: {},
  startedAtMs: nowMs,
  marks: [],
});

export const afterStep = (
  progress: StageProgress,
  step: number,
  metrics: Record<string, number>,
  nowMs: number,
): StageProgress => ({
  ...progress,
  step,
  metrics,
  marks: [...progress.marks.slice(1 - keptMarks), { step, atMs: nowMs }],
});

/** "loss 0.5123, kl 0.25, 1,203 tokens/s": what is known of it. */
export function describeMetrics({ metrics }: StageProgress): string {
  const shown = ["loss", "kl", "reward"].filter((key) => key in metrics);
  const words = shown.map((key) => `${key} ${formatNumber(metrics[key]!)}`);
  if ("tokens_per_second" in metrics) {
    words.push(`${Math.round(metrics.tokens_per_second!).toLocaleString("en-US")} tokens/s`);
  }
  if ("bytes_per_second" in metrics) words.push(formatBytesPerSecond(metrics.bytes_per_second!));
  return words.join(", ");
}

/** A disk's speed in GB/s, a network's in MB/s. */
const formatBytesPerSecond = (speed: number): string =>
  speed < 1e8 ? `${(speed / 1e6).toFixed(1)} MB/s` : `${(speed / 1e9).toFixed(2)} GB/s`;

/** "1m 20s, 3m 05s left": the second part once the speed is known. */
export function describeTime(progress: StageProgress, nowMs: number): string {
  const passed = formatSeconds((nowMs - progress.startedAtMs) / 1000);
  const left = secondsLeft(progress);
  return left === undefined ? passed : `${passed}, ${formatSeconds(left)} left`;
}

/** "distill: step 12 of 200 (1m 20s, 3m 05s left), loss 0.5123" */
export function describeStep(progress: StageProgress, nowMs: number): string {
  const { stage, step, steps, unit } = progress;
  const done = unit === undefined ? `step ${step} of ${steps}` : `${step} of ${steps} ${unit}`;
  const head = `${stage}: ${done} (${describeTime(progress, nowMs)})`;
  return [head, describeMetrics(progress)].filter((part) => part !== "").join(", ");
}

/** "1 step", "200 steps", "508 MB" */
export const describeSteps = (count: number, unit?: string): string =>
  `${count} ${unit ?? (count === 1 ? "step" : "steps")}`;

/** "distill: 200 steps done in 1m 03s, loss 0.5123" */
export function describeEnd(progress: StageProgress, nowMs: number): string {
  const time = formatSeconds((nowMs - progress.startedAtMs) / 1000);
  const head = `${progress.stage}: ${describeSteps(progress.steps - progress.firstDone, progress.unit)} done in ${time}`;
  return [head, describeMetrics(progress)].filter((part) => part !== "").join(", ");
}

/** Undefined until two steps have ended. */
export function secondsLeft({ marks, steps, step }: StageProgress): number | undefined {
  const [first, last] = [marks[0], marks.at(-1)];
  if (first === undefined || last === undefined || last.step <= first.step) return undefined;
  return ((last.atMs - first.atMs) / 1000 / (last.step - first.step)) * (steps - step);
}

/** 42 -> "42s", 80 -> "1m 20s", 3900 -> "1h 05m" */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${`${whole % 60}`.padStart(2, "0")}s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)}h ${`${minutes % 60}`.padStart(2, "0")}m`;
}

/** Four significant digits; 0.00001234 is 1.234e-5. */
export function formatNumber(value: number): string {
  const rounded = Number(value.toPrecision(4));
  return rounded !== 0 && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : `${rounded}`;
}
