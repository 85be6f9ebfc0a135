/** README.md of what a stage has trained: from what, by what, on what data, and what its steps measured. */
import { basename, join, relative, resolve } from "node:path";
import { hubName } from "../hub/name.js";
import { modelCard } from "../merge/model-card.js";
import { type Config, stringifyConfig } from "./config.js";
import { withPinnedNames } from "./config-models.js";
import type { LogLine } from "./run-folder.js";

type Phase = "sft" | "distill" | "rl";

export type Trained = {
  /** As stages.ts names it, such as "iteration-1/run-2". */
  readonly stage: string;
  readonly phase: Phase;
  /** Folder of the model that it began with. */
  readonly init: string;
  readonly isAdapter: boolean;
  readonly steps: number;
  /** Its lines of log.jsonl. */
  readonly log: readonly LogLine[];
};

/** What a phase does, for the reader and for the Hub. */
const PHASES: Readonly<Record<Phase, { readonly what: string; readonly tag: string; readonly how: string }>> = {
  sft: {
    what: "supervised fine-tuning",
    tag: "sft",
    how: "cross-entropy of the answers in the data",
  },
  distill: {
    what: "distillation",
    tag: "distillation",
    how: "the divergence from a teacher, token by token (GKD, arXiv 2306.13649)",
  },
  rl: {
    what: "reinforcement learning",
    tag: "reinforcement-learning",
    how: "REINFORCE with a leave-one-out baseline, against a moving average of the policy (WARP, arXiv 2406.16768)",
  },
};

/** Metrics of a step that say something about the model. */
const METRICS = ["loss", "kl", "reward"] as const;
/** Measured is the mean over this share of the steps, the last ones. */
const LAST = 1 / 10;

export function stageCard(config: Config, { stage, phase, init, isAdapter, steps, log }: Trained): string {
  const { what, tag, how } = PHASES[phase];
  // A stage before this one is where the config says that the run is, on whatever machine.
  const ofRun = relative(resolve(config.output_dir), init);
  const start = ofRun.startsWith("..") || init === config.model ? init : join(config.output_dir, ofRun);
  const named = (model: string) => hubName(model) ?? model;
  const base = hubName(config.model);
  return modelCard({
    library: isAdapter ? "peft" : "transformers",
    title: `${basename(config.output_dir)}/${stage}`,
    summary:
      `${isAdapter ? "An adapter for " : ""}\`${named(start)}\`${isAdapter ? ", learned in" : " after"} ${steps === 1 ? "1 step" : `${steps} steps`} of ` +
      `${what} by heddle, with the section \`${phase}\` of the config below.`,
    models: [...new Set([config.model, start, ...askedBy(phase, config)])].map(named),
    baseModels: base === null ? [] : [base],
    tags: [tag, "heddle"],
    methods: [{ name: phase, description: how }],
    data: [config.train_data],
    measured: measured(log),
    recipe: stringifyConfig(withPinnedNames(config)),
  });
}

/** Models that a phase asks beside the one that it trains. */
function askedBy(phase: Phase, { teacher, rl }: Config): string[] {
  if (phase === "distill") return [teacher!];
  return phase === "rl" && rl!.reward !== "exact_match" ? [rl!.reward.model] : [];
}

function measured(log: readonly LogLine[]): string[] {
  const last = log.slice(-Math.ceil(log.length * LAST));
  const over = last.length === 1 ? "the last" : `the mean of the last ${last.length}`;
  return METRICS.filter((metric) => last.every((line) => Number.isFinite(line[metric]))).map((metric) => {
    const mean = last.reduce((sum, line) => sum + (line[metric] as number), 0) / last.length;
    return `${metric} ${mean.toFixed(4)}, ${over} of ${log.length} training steps`;
  });
}
