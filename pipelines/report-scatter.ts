/** Reward against KL: the plane in which WARP's models are compared. */
import { colorBy, draw, FAINT, INK, WIDE } from "./report-draw.js";
import { type PlacedLabel, placeLabels } from "./report-labels.js";
import type { ResultRow } from "./results.js";

/** What a model is, by the last part of its name: "iteration-1/run-2" is a run. In the order of their colours. */
const KINDS = ["distilled", "run", "merged", "liti", "final", "start", "teacher", "other"];
const kindOf = (name: string) => KINDS.find((kind) => name.split("/").at(-1)!.startsWith(kind)) ?? "other";

/** `low` and `high` are a standard error around the reward. */
type Mark = { kl: number; reward: number; low: number; high: number; series: string; text: string };
type Domain = [number, number];

/** Models that were there before the first RL run, and are far from the others. */
export const isOrigin = ({ name }: ResultRow): boolean => ["start", "teacher"].includes(kindOf(name));

/**
 * Mean reward, with its standard error, against the square root of the KL to the distilled model: near the origin, where
 * RL moves, that scale is wide, and the teacher still fits in.
 */
export function drawRewardKl(rows: readonly ResultRow[]): Promise<string> {
  const marks = rows.map(({ name, kl, reward, rewardSe }): Mark => {
    const error = { low: reward - rewardSe, high: reward + rewardSe };
    return { kl: kl ?? 0, reward, ...error, series: kindOf(name), text: name };
  });
  const roots = paddedDomain(marks.map(({ kl }) => root(kl)));
  const rewards = paddedDomain(marks.flatMap(({ low, high }) => [low, high]));
  const labels = labelsIn(marks, roots, rewards);
  const x = {
    field: "kl",
    type: "quantitative",
    scale: { type: "sqrt", domain: roots.map(square), nice: false, zero: false },
    title: "KL to the distilled model, nats per completion (square-root scale)",
    axis: { tickCount: 8 },
  } as const;
  const y = (field: string) =>
    ({
      field,
      type: "quantitative",
      scale: { domain: rewards, nice: false, zero: false },
      title: "mean reward, ± standard error",
    }) as const;
  return draw({
    ...WIDE,
    encoding: { x },
    layer: [
      {
        data: { values: marks },
        encoding: { color: colorBy(KINDS) },
        layer: [
          { mark: { type: "rule", opacity: 0.55, strokeWidth: 1.5 }, encoding: { y: y("low"), y2: { field: "high" } } },
          { mark: { type: "point", filled: true, size: 95, opacity: 1 }, encoding: { y: y("reward") } },
        ],
      },
      ...(["left", "right", "center"] as const).map((align) => ({
        data: { values: labels.filter((label) => label.align === align) },
        mark: { type: "text", align, baseline: "middle", fontSize: 12, color: INK } as const,
        encoding: { y: y("reward"), text: { field: "text" } } as const,
      })),
      {
        data: { values: [{ kl: 0 }] },
        mark: { type: "rule", color: FAINT, strokeDash: [3, 3], opacity: 0.5 },
      },
    ],
  });
}

/** Each mark's name: placed among the pixels, told in the chart's units. */
function labelsIn(marks: readonly Mark[], [left, right]: Domain, [bottom, top]: Domain) {
  const perRoot = WIDE.width / (right - left);
  const perReward = WIDE.height / (top - bottom);
  const points = marks.map(({ kl, reward, high, text }) => ({
    x: (root(kl) - left) * perRoot,
    y: (top - reward) * perReward,
    reach: (high - reward) * perReward,
    text,
  }));
  const toUnits = ({ x, y, text, align }: PlacedLabel) => ({
    kl: square(left + x / perRoot),
    reward: top - y / perReward,
    text,
    align,
  });
  return placeLabels(points, WIDE.width, WIDE.height).map(toUnits);
}

// Keep the sign: an estimate of a small KL may be below zero.
const root = (x: number) => Math.sign(x) * Math.sqrt(Math.abs(x));
const square = (x: number) => x * Math.abs(x);

/** A tenth of room on both sides, also where all values are one. */
function paddedDomain(values: readonly number[]): Domain {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) / 10;
  return [low - room, high + room];
}
