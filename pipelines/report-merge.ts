/** The geometry of a merge, layer by layer: do the runs agree on a direction, and how far did they go? */
import type { GroupStatistics } from "../merge/warp.js";
import { colorBy, draw, HALF } from "./report-draw.js";

export type MergeCharts = {
  /** Degrees between a run's task vector and what was merged before it. */
  angles: string;
  /** Lengths of the runs' task vectors and of the merged one. */
  norms: string;
  /** Share of elements, in percent, that two runs move in opposite directions. */
  conflicts: string;
  /** In the order of their colours. */
  series: string[];
};

/** Groups of tensors in the model's order from left to right. An angle with a zero vector is left out. */
export async function drawMerge(groups: readonly GroupStatistics[]): Promise<MergeCharts> {
  const order = groups.map(({ group }) => shortName(group));
  const runs = groups[0]?.norms.length ?? 0;
  const series = [...Array.from({ length: runs }, (_, i) => `run ${i + 1}`), "merged"];
  const norms = groups.flatMap(({ norms: lengths, mergedNorm }, i) =>
    [...lengths, mergedNorm].map((norm, j) => ({ group: order[i], norm, series: series[j] })),
  );
  const angles = groups.flatMap(({ angles: radians }, i) =>
    radians.flatMap((angle, j) =>
      angle === null ? [] : [{ group: order[i], angle: (angle * 180) / Math.PI, series: series[j + 1] }],
    ),
  );
  const x = {
    field: "group",
    type: "ordinal",
    scale: { domain: order },
    title: null,
    axis: { labelAngle: -45, labelOverlap: true, labelLimit: 120 },
  } as const;
  const y = { type: "quantitative", axis: { tickCount: 5 }, title: null } as const;
  const mark = { type: "line", strokeWidth: 1.5, point: { size: 35 } } as const;
  const color = colorBy(series);
  const conflicts = groups.map(({ signConflicts }, i) => ({
    group: order[i],
    conflicts: 100 * signConflicts,
    series: "runs",
  }));
  const [angleChart, normChart, conflictChart] = await Promise.all([
    draw({
      ...HALF,
      data: { values: angles },
      mark,
      encoding: { x, y: { field: "angle", ...y, scale: { zero: false } }, color },
    }),
    draw({ ...HALF, data: { values: norms }, mark, encoding: { x, y: { field: "norm", ...y }, color } }),
    draw({
      ...HALF,
      data: { values: conflicts },
      mark,
      encoding: { x, y: { field: "conflicts", ...y }, color: colorBy(["runs"]) },
    }),
  ]);
  return { angles: angleChart, norms: normChart, conflicts: conflictChart, series };
}

/** "layer 3" for "model.layers.3", "3 mlp.up_proj" for a tensor of it, "embed_tokens" for "model.embed_tokens.weight". */
function shortName(group: string): string {
  const short = group.replace(/^model\./, "").replace(/\.weight$/, "");
  return short.replace(/^layers\.(\d+)$/, "layer $1").replace(/^layers\.(\d+)\./, "$1 ");
}
