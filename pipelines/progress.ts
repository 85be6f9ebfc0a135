/** Shows what a task tells: a bar on a terminal, plain lines elsewhere. On stderr: stdout is for results. */
import type { WriteStream } from "node:tty";
import cliProgress from "cli-progress";
import type { TaskEvent } from "./events.js";
import {
  afterStep,
  beginStage,
  describeEnd,
  describeMetrics,
  describeStep,
  describeSteps,
  describeTime,
  type StageProgress,
} from "./progress-text.js";

export interface Progress {
  onEvent(event: TaskEvent): void;
  /** Takes the bar away. */
  stop(): void;
}

/** Where the words go. `step` may show every step or some. */
interface Display {
  line(text: string): void;
  /** A piece of the result, on stdout. */
  result(text: string): void;
  begin(progress: StageProgress): void;
  step(progress: StageProgress): void;
  end(text: string): void;
  stop(): void;
}

/** A bar if the stream is a terminal and neither NO_COLOR nor CI asks for plain text. */
export function startProgress(stream: WriteStream = process.stderr, env: NodeJS.ProcessEnv = process.env): Progress {
  const asksForPlain = Boolean(env.NO_COLOR) || (Boolean(env.CI) && env.CI !== "false");
  return showOn(stream.isTTY && !asksForPlain ? barDisplay(stream) : plainDisplay((text) => stream.write(text)));
}

/** Follows the stages and hands the display what to show. `now` in ms. */
export function showOn(display: Display, now: () => number = Date.now): Progress {
  const stages = new Map<string, StageProgress>();
  const show = (event: TaskEvent) => {
    switch (event.type) {
      case "stage": {
        const before = stages.get(event.stage);
        if (event.done < event.steps) {
          const progress = beginStage(event.stage, event.steps, event.done, now(), event.unit);
          stages.set(event.stage, progress);
          display.begin(progress);
        } else {
          stages.delete(event.stage);
          display.end(before === undefined ? `${event.stage}: done before` : describeEnd(before, now()));
        }
        break;
      }
      case "step": {
        const before = stages.get(event.stage);
        if (before === undefined) break;
        const progress = afterStep(before, event.step, event.metrics, now());
        stages.set(event.stage, progress);
        display.step(progress);
        break;
      }
      case "compile":
        display.line(`compiled ${event.what} in ${event.seconds.toFixed(1)}s`);
        break;
      case "text":
        display.result(event.text);
        break;
      case "note":
      case "output":
        display.line(event.text);
        break;
    }
  };
  return { onEvent: show, stop: () => display.stop() };
}

/** Begin and end of a stage, and a step at most every `everyMs`. */
export function plainDisplay(write: (text: string) => void, everyMs = 2000, now: () => number = Date.now): Display {
  let lastStepMs = -Infinity;
  const line = (text: string) => write(`${text}\n`);
  return {
    line,
    result: toStdout,
    begin: ({ stage, steps, step, unit }) => {
      lastStepMs = now();
      const done = unit === undefined ? `step ${step} of ${steps}` : `${step} of ${steps} ${unit}`;
      line(step === 0 ? `${stage}: ${describeSteps(steps, unit)}` : `${stage}: goes on after ${done}`);
    },
    step: (progress) => {
      if (now() - lastStepMs < everyMs) return;
      lastStepMs = now();
      line(describeStep(progress, now()));
    },
    end: line,
    stop: () => {},
  };
}

const toStdout = (text: string) => {
  process.stdout.write(text);
};

/** One bar, in the last line. It is taken away while a line is written above it, so neither cuts the other. */
function barDisplay(stream: WriteStream): Display {
  let shown: StageProgress | undefined;
  const bar = new cliProgress.SingleBar({
    stream,
    fps: 10,
    linewrap: true,
    clearOnComplete: true,
    barsize: 16,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    format: (options, params) => {
      const { stage, step, steps, unit } = shown!;
      const bar = `${stage} ${cliProgress.Format.BarFormat(params.progress, options)} ${step}/${steps}${unit === undefined ? "" : ` ${unit}`}`;
      const text = [bar, describeTime(shown!, Date.now()), describeMetrics(shown!)].join("  ");
      return text.slice(0, Math.max(1, stream.columns - 1));
    },
  });
  const hide = () => {
    if (bar.isActive) bar.stop();
  };
  const above = (write: () => void) => {
    hide();
    write();
    if (shown !== undefined) bar.start(shown.steps, shown.step);
  };
  return {
    line: (text) => above(() => stream.write(`${text}\n`)),
    result: (text) => above(() => toStdout(text)),
    begin: (progress) => {
      hide();
      shown = progress;
      bar.start(progress.steps, progress.step);
    },
    step: (progress) => {
      shown = progress;
      bar.update(progress.step);
    },
    end: (text) => {
      hide();
      shown = undefined;
      stream.write(`${text}\n`);
    },
    stop: () => {
      hide();
      shown = undefined;
    },
  };
}
