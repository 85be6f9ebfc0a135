/** What a task tells while it computes. Events are plain data: they cross from the child to the parent as messages. */

export type TaskEvent =
  /**
   * A stage begins with `done` of its `steps` behind it (0, or where it resumes), and has ended when `done` = `steps`.
   * One event with `done` = `steps` and none before it: the stage was finished in an earlier process.
   * `unit` is what steps are called where they are none: "MB".
   */
  | { type: "stage"; stage: string; steps: number; done: number; unit?: string }
  /** Step `step` (from 1) is done. Keys of `metrics` are those of log.jsonl: loss, kl, reward, tokens_per_second, ...; bytes_per_second. */
  | { type: "step"; stage: string; step: number; metrics: Record<string, number> }
  /** `what` was compiled, once for its shapes, and run for the first time in `seconds`. */
  | { type: "compile"; what: string; seconds: number }
  /** A piece of the result, for stdout as it is. */
  | { type: "text"; text: string }
  /** A line for the reader. */
  | { type: "note"; text: string }
  /** A line that the task's process wrote to stdout or stderr and that is no noise. */
  | { type: "output"; text: string };

export type OnEvent = (event: TaskEvent) => void;

/** What a task is given beside its parameters. */
export interface TaskContext {
  emit: OnEvent;
  /** Aborted when the task shall stop: finish the step, save, then `signal.throwIfAborted()`. */
  signal: AbortSignal;
  /**
   * Lets messages in. TensorFlow and promises alone never turn the event loop, so a task awaits this between steps
   * (and a host between requests) or it will not hear that it shall stop.
   */
  breathe(): Promise<void>;
}

/** A module in pipelines/tasks that computes one result. */
export interface TaskModule {
  run(params: unknown, context: TaskContext): Promise<unknown>;
}

/** A module in pipelines/tasks that answers requests until it is closed. */
export interface HostModule {
  open(params: unknown, context: TaskContext): Promise<(message: unknown) => Promise<unknown>>;
}
