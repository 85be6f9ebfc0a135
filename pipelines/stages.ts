/** A stage of a run: once, resumable, its steps in log.jsonl and on the progress bar, its result a model folder. */
import { join, resolve } from "node:path";
import { deriveSeed } from "../distill/batches.js";
import { readRows } from "../distill/data.js";
import { type EncodedRow, encodePrompts } from "../distill/encode.js";
import type { TrainingSettings } from "../distill/settings.js";
import { type StageContext, saveStageAdapter, saveStageModel } from "../distill/training.js";
import { inCache } from "../hub/name.js";
import { quantisationOf } from "../model/compute.js";
import { type ModelFolder, openWeights } from "../model/load.js";
import { disposeModel, type LoadedModel, loadModel } from "../model/loaded.js";
import type { LoraSettings } from "../model/lora.js";
import type { AdapterBase } from "../model/save.js";
import { parameterShapes } from "../model/shapes.js";
import { quantisedIn } from "../model/weights.js";
import { learning } from "../student/learning.js";
import { createAdapter } from "../student/lora.js";
import { removeTrainingState } from "../student/training-state.js";
import type { Config } from "./config.js";
import { withPinnedNames } from "./config-models.js";
import type { TaskContext } from "./events.js";
import { type LogLine, openRun, type Run, readLog } from "./run-folder.js";
import { stageCard } from "./stage-card.js";

/** What a stage is called in log.jsonl; the folder and the name in state.json follow from it. */
export type StageName =
  | { readonly phase: "sft" | "distill" | "rl" }
  | { readonly phase: "rl"; readonly iteration: number; readonly run: number };

/** "distill", "iteration-1/run-2" */
export const stagePath = (name: StageName): string =>
  "run" in name ? `iteration-${name.iteration}/run-${name.run}` : name.phase;

/** Opens the run of a config, hands it to `work` and gives the lock back. */
export async function inRun<R>(config: Config, work: (run: Run) => Promise<R>): Promise<R> {
  const run = await openRun(config.output_dir, withPinnedNames(config));
  try {
    return await work(run);
  } finally {
    run.close();
  }
}

/** The prompts of a JSONL file, for a stage that answers with at most `maxNewTokens`. */
export async function readPrompts(
  path: string,
  folder: ModelFolder,
  { system, allow_control_tokens: allowControlTokens }: Config,
  maxNewTokens: number,
): Promise<EncodedRow[]> {
  return encodePrompts(folder, await readRows(path), { system, allowControlTokens, maxNewTokens });
}

/**
 * Trains the model in `init` by `work`, unless an earlier process has finished the stage. The result is the folder that
 * is returned; its training checkpoints are removed once state.json says that it is done.
 */
export async function runStage(
  run: Run,
  config: Config,
  context: TaskContext,
  name: StageName,
  init: string,
  { steps, trainable, lora }: Pick<TrainingSettings, "steps" | "trainable" | "lora">,
  work: (model: LoadedModel, stage: StageContext) => Promise<void>,
): Promise<string> {
  const { seed, compute_dtype: dtype, load_in_4bit, load_in_8bit, warp } = config;
  const stage = stagePath(name);
  const dir = join(run.dir, stage);
  if (stage in run.state.stages) {
    // A process that was killed may have left it.
    await removeTrainingState(dir);
    context.emit({ type: "stage", stage, steps, done: steps });
    return dir;
  }
  const isOfStage = (line: LogLine) =>
    line.phase === name.phase && (!("run" in name) || (line.iteration === name.iteration && line.run === name.run));
  const learns = learning({ trainable, lora }, Object.keys(parameterShapes((await openWeights(init)).config)));
  const quantised = quantisationOf(load_in_4bit, load_in_8bit);
  const frozen = quantised === null ? () => "stored" as const : quantisedIn(quantised);
  const storageOf = (tensor: string) => (learns(tensor) ? "float32" : frozen(tensor));
  const base = await loadModel(init, { dtype, storageOf, mergesAdapter: true });
  let model = base;
  try {
    if (lora !== null) model = withAdapter(base, lora, seed);
    await work(model, {
      stage,
      seed,
      iteration: "run" in name ? name.iteration : 1,
      dir,
      signal: context.signal,
      breathe: context.breathe,
      onStart: (done) => {
        run.truncateLog((line) => !isOfStage(line) || line.step <= done);
        context.emit({ type: "stage", stage, steps, done });
      },
      onStep: (step, metrics) => {
        run.log({ ...name, step, ...metrics });
        context.emit({ type: "step", stage, step, metrics });
      },
    });
    // Stages of WARP hand on whole models: what is merged are weights. So does a stage on an adapter that became part of its
    // base: no folder is the base of the new one.
    const adapter = warp === undefined && base.folder.adapter === null ? lora : null;
    const log = readLog(run.dir).filter(isOfStage);
    const card = stageCard(config, { stage, phase: name.phase, init, isAdapter: adapter !== null, steps, log });
    if (adapter === null) await saveStageModel(dir, model, card);
    else await saveStageAdapter(dir, model, adapter, baseOf(init), card);
  } finally {
    disposeModel(model);
  }
  run.finishStage(stage, { steps });
  await removeTrainingState(dir);
  context.emit({ type: "stage", stage, steps, done: steps });
  return dir;
}

/**
 * What an adapter calls the model that it is for: the path of a folder whole, since one relative to a working directory is
 * found from no other, and may be a model's name on the hub.
 */
function baseOf(init: string): AdapterBase {
  const cached = inCache(init);
  return cached === null ? { name: resolve(init), revision: null } : { name: cached.repo, revision: cached.commit };
}

/** The model with a new adapter on it. */
const withAdapter = ({ folder, parameters }: LoadedModel, lora: LoraSettings, seed: number): LoadedModel => ({
  folder,
  parameters: {
    ...parameters,
    ...createAdapter(folder.config, lora, (name) => deriveSeed(seed, "lora", name)),
  },
});

/** The line that a command of one stage prints when it is done. */
export const doneLine = (dir: string): string => `${dir}: the model is ready\n`;
