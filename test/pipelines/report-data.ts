/** A made-up run with everything that a report can show. */
import type { ReportData } from "../../pipelines/report.js";
import type { LogLine } from "../../pipelines/run-folder.js";

/** A number from -1 to 1 that looks random and is always the same. */
const noise = (i: number) => Math.sin(12.9898 * i + 78.233 * Math.sin(i));

const rlLine = (iteration: number, run: number, step: number): LogLine => ({
  phase: "rl",
  iteration,
  run,
  step,
  loss: 0.05 * noise(step + 7 * run),
  kl: 0.02 * step + 0.2 * run + 0.1 * noise(step * run),
  reward: 0.35 + 0.08 * iteration + 0.002 * step + 0.06 * noise(3 * step + run),
  tokens_per_second: 1000,
});
const steps = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

const row = (name: string, greedy: number, reward: number, kl: number | null) => ({
  name,
  greedy,
  reward,
  rewardSe: 0.011,
  kl,
});

export const reportData: ReportData = {
  title: "heddle warp: runs/arithmetic",
  config:
    "model: student\nteacher: teacher\ndistill:\n  steps: 200 # <fast> & cheap\nwarp:\n  iterations: 2\n  runs: 2\n",
  log: [
    ...steps(20).map((step) => ({ phase: "sft", step, loss: 2 / Math.sqrt(step) })),
    ...steps(200).map((step) => ({
      phase: "distill",
      step,
      loss: 1.4 * Math.exp(-step / 60) + 0.2 + 0.05 * noise(step),
      kl: 1.1 * Math.exp(-step / 70) + 0.15 + 0.04 * noise(2 * step),
    })),
    ...[1, 2].flatMap((iteration) => [1, 2].flatMap((run) => steps(100).map((step) => rlLine(iteration, run, step)))),
  ],
  reward: "exact_match",
  table: [
    row("teacher", 0.545, 0.512, 14.2),
    row("start", 0.052, 0.041, 21.7),
    row("distilled", 0.368, 0.331, null),
    row("iteration-1/run-1", 0.441, 0.418, 1.91),
    row("iteration-1/run-2", 0.437, 0.421, 2.05),
    row("iteration-1/merged", 0.455, 0.439, 1.42),
    row("iteration-1/liti", 0.402, 0.371, 0.31),
    row("iteration-2/run-1", 0.472, 0.446, 2.85),
    row("iteration-2/run-2", 0.469, 0.449, 2.9),
    row("iteration-2/merged", 0.481, 0.463, 2.21),
    row("final", 0.463, 0.444, 0.98),
  ],
  merges: [1, 2].map((iteration) => ({
    name: `iteration-${iteration}`,
    statistics: [
      "model.embed_tokens.weight",
      "model.layers.0",
      "model.layers.1",
      "model.layers.2",
      "model.norm.weight",
    ].map((group, i) => ({
      group,
      tensors: 11,
      norms: [0.4 + 0.1 * i, 0.45 + 0.08 * i],
      angles: [i === 4 ? null : 1.1 + 0.1 * i],
      cosines: [i === 4 ? null : Math.cos(1.1 + 0.1 * i)],
      mergedNorm: 0.3 + 0.09 * i,
      baseNorm: 20,
      pairwise: [
        [1, Math.cos(1.1 + 0.1 * i)],
        [Math.cos(1.1 + 0.1 * i), 1],
      ],
      normRatios: [1, 1.1],
      signConflicts: 0.4,
    })),
  })),
  samples: steps(10).map((i) => ({
    prompt: `${i} * 7 =`,
    completion: i % 3 === 0 ? `<b>${i * 7 + 1}</b>` : `${i * 7}`,
    answer: `${i * 7}`,
    reward: i % 3 === 0 ? 0 : 1,
  })),
};
