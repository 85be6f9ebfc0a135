/** From log.jsonl to what the report plots: one curve chart for each stage and metric. */
import { colorBy, draw, FAINT, HALF } from "./report-draw.js";
import type { LogLine } from "./run-folder.js";

/** `mean` is the moving mean of `value`, along one line: one series within one iteration. */
export type CurvePoint = { x: number; value: number; mean: number; series: string; line: string };

export type Curve = {
  /** "distill" */
  phase: string;
  /** "loss" */
  metric: string;
  points: CurvePoint[];
  /** In the order of their colours. */
  series: string[];
  /** Where the second, third, ... iteration begins. */
  iterationStarts: number[];
};

const PHASES = ["sft", "distill", "rl"];
const METRICS = ["loss", "kl", "reward", "accuracy"];
/** More points than this are thinned out: a chart is some 400 pixels wide. */
const MAX_POINTS = 400;
/** The moving mean looks at this share of a line. */
const SMOOTHING = 1 / 20;

/** Charts by phase, then by metric. What was never logged as a finite number has no chart. */
export function curvesOf(log: readonly LogLine[]): Curve[] {
  return PHASES.flatMap((phase) => {
    const lines = log.filter((line) => line.phase === phase);
    return METRICS.map((metric) => curveOf(phase, metric, lines)).filter((curve) => curve.points.length > 0);
  });
}

function curveOf(phase: string, metric: string, lines: readonly LogLine[]): Curve {
  const starts = iterationOffsets(lines);
  const groups = new Map<string, LogLine[]>();
  for (const line of lines.filter((one) => Number.isFinite(one[metric]))) {
    const key = `${line.iteration ?? 1}/${line.run ?? ""}`;
    groups.set(key, [...(groups.get(key) ?? []), line]);
  }
  const points = [...groups].flatMap(([line, logged]) => {
    const values = logged.map((one) => one[metric] as number);
    const means = movingMean(values);
    const series = logged[0]!.run === undefined ? phase : `run ${logged[0]!.run}`;
    const all = logged.map((one, i): CurvePoint => {
      const x = one.step + starts.get(one.iteration ?? 1)!;
      return { x, value: values[i]!, mean: means[i]!, series, line };
    });
    const every = Math.ceil(all.length / MAX_POINTS);
    return all.filter((_, i) => i % every === 0 || i === all.length - 1);
  });
  const series = [...new Set(points.map((point) => point.series))].sort((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  );
  return { phase, metric, points, series, iterationStarts: [...starts.values()].slice(1) };
}

/** Iterations follow each other on the axis: how many steps come before each. */
function iterationOffsets(lines: readonly LogLine[]): Map<number, number> {
  const lengths = new Map<number, number>();
  for (const { iteration = 1, step } of lines) lengths.set(iteration, Math.max(step, lengths.get(iteration) ?? 0));
  const offsets = new Map<number, number>();
  let before = 0;
  for (const [iteration, length] of [...lengths].sort(([a], [b]) => a - b)) {
    offsets.set(iteration, before);
    before += length;
  }
  return offsets;
}

/** The mean over a window around each value, cut off at the ends. */
function movingMean(values: readonly number[]): number[] {
  const reach = Math.floor((values.length * SMOOTHING) / 2);
  return values.map((_, i) => {
    const window = values.slice(Math.max(0, i - reach), i + reach + 1);
    return window.reduce((sum, value) => sum + value, 0) / window.length;
  });
}

/** Faint lines as logged, strong ones the moving mean, a rule where an iteration begins. */
export function drawCurve({ points, series, iterationStarts }: Curve): Promise<string> {
  const isSparse = points.length <= 30 * series.length;
  const y = { type: "quantitative", scale: { zero: false }, title: null, axis: { tickCount: 5 } } as const;
  const x = {
    field: "x",
    type: "quantitative",
    title: "step",
    scale: { nice: false, zero: false },
    axis: { grid: false, tickCount: 6 },
  } as const;
  return draw({
    ...HALF,
    encoding: { x },
    layer: [
      {
        data: { values: iterationStarts.map((start) => ({ x: start })) },
        mark: { type: "rule", color: FAINT, strokeDash: [3, 3] },
      },
      {
        data: { values: points },
        encoding: { color: colorBy(series), detail: { field: "line" } },
        layer: [
          {
            mark: { type: "line", strokeWidth: 1, opacity: isSparse ? 0 : 0.3 },
            encoding: { y: { field: "value", ...y } },
          },
          {
            mark: { type: "line", strokeWidth: 2, point: isSparse && { size: 22 } },
            encoding: { y: { field: "mean", ...y } },
          },
        ],
      },
    ],
  });
}
