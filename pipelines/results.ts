/** Models of a run measured side by side on held-out prompts. */
import { deriveSeed } from "../distill/batches.js";
import { type Judged, judge, sampledReward } from "../distill/evaluate.js";
import { closeReward, loadReward, openReward, type Reward } from "../distill/reward-model.js";
import { mean, standardError } from "../distill/statistics.js";
import type { ComputeDtype } from "../model/compute.js";
import { disposeModel, type LoadedModel, loadModel } from "../model/loaded.js";
import type { ConfigFor } from "./config.js";
import type { TaskContext } from "./events.js";
import type { Run } from "./run-folder.js";
import { readPrompts } from "./stages.js";

/** One model's measures. */
export type ResultRow = {
  readonly name: string;
  /** Mean reward of greedy completions. With exact_match that is the accuracy, from 0 to 1. */
  readonly greedy: number;
  /** Mean reward of sampled completions (temperature 1), and its standard error over prompts. */
  readonly reward: number;
  readonly rewardSe: number;
  /** KL(model || distilled) in nats per completion, on the model's own samples; null for the distilled model itself. */
  readonly kl: number | null;
};

export type Result = { readonly row: ResultRow; readonly samples: readonly Judged[] };

/** A model to measure: how the table calls it, its folder, and what it is kept and computed in (float32 unless told). */
export type Candidate = { readonly name: string; readonly dir: string; readonly dtype?: ComputeDtype };

/** Completions of a result that are kept to be shown. */
const KEPT_SAMPLES = 10;

type MeasuredConfig = ConfigFor<"warp"> & { readonly eval_data: string };

/**
 * Measures each model on the held-out prompts: the same prompts and random numbers for all. What an earlier process has
 * measured is taken from state.json.
 */
export async function measureModels(
  run: Run,
  config: MeasuredConfig,
  context: TaskContext,
  candidates: readonly Candidate[],
  referenceDir: string,
): Promise<Result[]> {
  const missing = candidates.filter(({ name }) => !(`eval/${name}` in run.state.stages));
  if (missing.length > 0) await measureMissing(run, config, context, missing, referenceDir);
  return candidates.map(({ name }) => run.state.stages[`eval/${name}`] as Result);
}

async function measureMissing(
  run: Run,
  config: MeasuredConfig,
  context: TaskContext,
  missing: readonly Candidate[],
  referenceDir: string,
): Promise<void> {
  const reference = await loadModel(referenceDir, { learns: false });
  let reward: Reward = "exact_match";
  try {
    reward = await loadReward(await openReward(config.rl.reward, reference.folder));
    for (const { name, dir, dtype = "float32" } of missing) {
      const model = await loadModel(dir, { dtype, learns: false });
      try {
        const from = dir === referenceDir ? null : reference;
        run.finishStage(`eval/${name}`, await measureModel(name, model, from, reward, config, context));
      } finally {
        disposeModel(model);
      }
    }
  } finally {
    disposeModel(reference);
    closeReward(reward);
  }
}

async function measureModel(
  name: string,
  model: LoadedModel,
  reference: LoadedModel | null,
  reward: Reward,
  config: MeasuredConfig,
  context: TaskContext,
): Promise<Result> {
  const { samples, limit, ...settings } = config.eval;
  const all = await readPrompts(config.eval_data, model.folder, config, settings.max_new_tokens);
  const rows = limit === null ? all : all.slice(0, limit);

  const batches = (each: number) => Math.ceil(rows.length / Math.max(1, Math.floor(settings.batch_size / each)));
  const steps = batches(1) + batches(samples);
  const stage = `eval ${name}`;
  let step = 0;
  context.emit({ type: "stage", stage, steps, done: 0 });
  const breathe = async () => {
    context.emit({ type: "step", stage, step: ++step, metrics: {} });
    await context.breathe();
    context.signal.throwIfAborted();
  };
  const options = { ...settings, reward, seed: deriveSeed(config.seed, "eval"), breathe };

  const greedy = await judge(model, rows, { samples: 1, temperature: 0 }, options);
  const sampled = await sampledReward(model, rows, samples, options, reference);
  const row = {
    name,
    greedy: mean(greedy.judged.map(({ reward }) => reward)),
    reward: mean(sampled.byRow),
    rewardSe: standardError(sampled.byRow),
    kl: reference === null ? null : sampled.kl,
  };
  context.emit({ type: "stage", stage, steps, done: steps });
  return { row, samples: sampled.judged.slice(0, KEPT_SAMPLES) };
}
