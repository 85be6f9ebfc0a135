/** report.html of a run: one page with everything in it, to be read without a network and without scripts. */
import type { Judged } from "../distill/evaluate.js";
import type { RewardSetting } from "../distill/reward-model.js";
import { hubName } from "../hub/name.js";
import type { GroupStatistics } from "../merge/warp.js";
import type { Curve } from "./report-curves.js";
import { STYLE } from "./report-style.js";
import type { ResultRow } from "./results.js";
import type { LogLine } from "./run-folder.js";
import { greedyHead, greedyText, klText, rewardText } from "./table.js";

export type ReportData = {
  title: string;
  /** The resolved config, as YAML. */
  config: string;
  log: readonly LogLine[];
  /** What the rewards of table and samples are. */
  reward: RewardSetting;
  /** The models side by side; empty without held-out prompts. */
  table: readonly ResultRow[];
  /** By iteration. */
  merges: readonly { name: string; statistics: readonly GroupStatistics[] }[];
  /** Completions of the final model. */
  samples: readonly Judged[];
};

/** The page's HTML. What there is no data for has no section. */
export async function renderReport({
  title,
  config,
  log,
  reward,
  table,
  merges,
  samples,
}: ReportData): Promise<string> {
  const sections = [
    resultSection(table, reward),
    await planeSection(table),
    await curveSection(log),
    await mergeSection(merges),
    sampleSection(samples, reward),
    `<h2>Config</h2>\n<pre>${escapeHtml(config)}</pre>`,
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
${sections.filter((section) => section !== "").join("\n")}
</main>
</body>
</html>
`;
}

function resultSection(rows: readonly ResultRow[], reward: RewardSetting): string {
  if (rows.length === 0) return "";
  const body = rows.map(
    (row) => `<tr${row.name === "final" ? ' class="final"' : ""}><td>${escapeHtml(row.name)}</td>
${greedyCell(row, reward)}
<td class="number">${rewardText(row)}</td><td class="number">${klText(row)}</td></tr>`,
  );
  return `<h2>Results</h2>
<p>On held-out prompts. ${escapeHtml(meaningOf(reward))} Reward: mean over sampled completions and its
standard error over prompts. KL: to the distilled model, in nats per completion.</p>
<table>
<thead><tr><th>model</th><th class="number">${greedyHead(reward)}</th><th class="number">reward</th><th class="number">KL</th></tr></thead>
<tbody>
${body.join("\n")}
</tbody>
</table>`;
}

/** A share has a bar. */
function greedyCell(row: ResultRow, reward: RewardSetting): string {
  const text = greedyText(row, reward);
  if (reward !== "exact_match") return `<td class="number">${text}</td>`;
  return `<td class="number share" style="--share:${(100 * row.greedy).toFixed(1)}%">${text}</td>`;
}

const meaningOf = (reward: RewardSetting): string =>
  reward === "exact_match"
    ? "Accuracy: greedy completions that are the answer."
    : `Rewards: scores of the reward model ${hubName(reward.model) ?? reward.model}. Greedy reward: mean over greedy completions.`;

// The charts are loaded when they are needed: vega takes half a second.

async function planeSection(rows: readonly ResultRow[]): Promise<string> {
  if (rows.length === 0) return "";
  const { drawRewardKl, isOrigin } = await import("./report-scatter.js");
  const near = rows.filter((row) => !isOrigin(row));
  const closeUp = near.length > 2 && near.length < rows.length;
  return `<h2>Reward against KL</h2>
<p>Up is better, left is closer to the distilled model. Merging should lie above the line between the runs and where they
started; pulling toward the start trades reward for KL.</p>
${closeUp ? figure("from the distilled model on", await drawRewardKl(near)) : ""}
${figure("all models", await drawRewardKl(rows))}`;
}

const PHASES: Record<string, string> = {
  sft: "Supervised fine-tuning",
  distill: "Distillation",
  rl: "Reinforcement learning",
};

async function curveSection(log: readonly LogLine[]): Promise<string> {
  const { curvesOf, drawCurve } = await import("./report-curves.js");
  const { seriesColor } = await import("./report-draw.js");
  const curves = curvesOf(log);
  const figures = async (ofPhase: Curve[]) => {
    const drawn = ofPhase.map(async (curve) => {
      const colored = curve.series.map((name, i) => ({ name, color: seriesColor(i) }));
      return figure(curve.metric, await drawCurve(curve), colored);
    });
    return (await Promise.all(drawn)).join("\n");
  };
  const phases = [...new Set(curves.map((curve) => curve.phase))].map(
    async (phase) => `<h3>${PHASES[phase]}</h3>
<div class="charts">
${await figures(curves.filter((curve) => curve.phase === phase))}
</div>`,
  );
  if (phases.length === 0) return "";
  return `<h2>Training</h2>
<p>Faint: each step as in log.jsonl. Strong: its moving mean. A dashed line is the start of the next iteration.</p>
${(await Promise.all(phases)).join("\n")}`;
}

async function mergeSection(merges: ReportData["merges"]): Promise<string> {
  if (merges.length === 0) return "";
  const { drawMerge } = await import("./report-merge.js");
  const { seriesColor } = await import("./report-draw.js");
  const parts = merges.map(async ({ name, statistics }) => {
    const { angles, norms, conflicts, series } = await drawMerge(statistics);
    const colored = series.map((one, i) => ({ name: one, color: seriesColor(i) }));
    return `<h3>${escapeHtml(name)}</h3>
<div class="charts">
${figure("angle, degrees", angles, colored.slice(1, -1))}
${figure("length of the task vector", norms, colored)}
${series.length > 2 ? figure("elements with opposite signs, percent", conflicts) : ""}
</div>`;
  });
  return `<h2>Merging</h2>
<p>Task vectors, weights minus the init they started from, group by group. The angle of a run is to what was merged before
it: 90° says that the runs learned different things, 0° the same. Elements with opposite signs are moved in opposite
directions by two runs: half of them where the runs have nothing in common.</p>
${(await Promise.all(parts)).join("\n")}`;
}

/** A chart with its name and, where there are several, its series. */
function figure(name: string, svg: string, series: readonly { name: string; color: string }[] = []): string {
  const legend = series.map(
    (one) => `<span class="series" style="--color:${one.color}">${escapeHtml(one.name)}</span>`,
  );
  const caption = [`<span>${escapeHtml(name)}</span>`, ...(series.length > 1 ? legend : [])].join("");
  return `<figure><figcaption>${caption}</figcaption>${svg}</figure>`;
}

function sampleSection(samples: readonly Judged[], reward: RewardSetting): string {
  if (samples.length === 0) return "";
  const verdict = reward === "exact_match" ? rightOrWrong : (score: number) => score.toFixed(3);
  const body = samples.map(
    ({ prompt, completion, answer, reward: score }) => `<tr><td class="text">${escapeHtml(prompt)}</td>
<td class="text">${escapeHtml(completion)}</td><td class="text">${escapeHtml(answer ?? "")}</td>
<td>${verdict(score)}</td></tr>`,
  );
  return `<h2>Samples of the final model</h2>
<table>
<thead><tr><th>prompt</th><th>completion</th><th>answer</th><th>${reward === "exact_match" ? "" : "reward"}</th></tr></thead>
<tbody>
${body.join("\n")}
</tbody>
</table>`;
}

const rightOrWrong = (score: number): string =>
  score === 1 ? '<span class="right">✓ right</span>' : '<span class="wrong">✗ wrong</span>';

const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
