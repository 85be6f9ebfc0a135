/** What the stages that train have in common: the loop over steps, training checkpoints, resuming, the finished model. */
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tf, type Variable } from "tfjs-jit";
import type { LoadedModel } from "../model/loaded.js";
import type { LoraSettings } from "../model/lora.js";
import { downloadTensor, type HostTensors, type Parameters, uploadParameters } from "../model/parameters.js";
import { type AdapterBase, saveAdapter, saveModel } from "../model/save.js";
import { learning } from "../student/learning.js";
import { adapterOf, mergedTensors } from "../student/lora.js";
import type { Trainable } from "../student/trainable.js";
import { loadTrainingState, saveTrainingState } from "../student/training-state.js";
import { deriveSeed } from "./batches.js";
import { TrainingError } from "./errors.js";

/** What a step tells: keys are those of log.jsonl. */
export type Metrics = Record<string, number>;

/** Has tensors freed at the end of a step, also where it ends with an error; those that are freed before may be among them. */
export type Own = <T>(tensors: T) => T;

/** Where a stage stands in its run. */
export type StageContext = {
  /** Such as "distill" or "iteration-1/run-2": with the seed it decides every batch and random number. */
  readonly stage: string;
  readonly seed: number;
  /** Of WARP, from 1; 1 in a stage that runs by itself. */
  readonly iteration: number;
  /** Folder for training checkpoints and, at the end, the model. */
  readonly dir: string;
  /** Aborted when the stage shall save and stop after its step. */
  readonly signal: AbortSignal;
  /** Awaited between steps: lets the process hear that it shall stop. */
  breathe(): Promise<void>;
  /** Told once, how many steps an earlier process has done. */
  onStart(done: number): void;
  /** Told after each step. */
  onStep(step: number, metrics: Metrics): void;
};

/**
 * Runs `oneStep` for the steps that are not done yet. The state is saved every `save_every` steps and when the signal
 * aborts, which then throws its reason. `extra` are parameters beside the trainable ones that move with the run.
 * Steps must follow from their number and the state alone: then a resumed run ends with the same bits.
 */
export async function train(
  { parameters, m, v, dropout }: Trainable,
  extra: Parameters,
  { steps, save_every }: { readonly steps: number; readonly save_every: number },
  context: StageContext,
  oneStep: (step: number, own: Own) => Promise<Metrics>,
): Promise<void> {
  const shapes = Object.fromEntries(Object.entries(parameters).map(([name, { shape }]) => [name, shape]));
  const saved = await loadTrainingState(context.dir, shapes);
  if (saved !== undefined) {
    uploadParameters(parameters, saved.parameters);
    uploadParameters(m, saved.m);
    uploadParameters(v, saved.v);
    uploadParameters(extra, saved.extra);
  }
  const save = (step: number) =>
    saveTrainingState(context.dir, {
      step,
      parameters: lazyTensors(parameters),
      m: lazyTensors(m),
      v: lazyTensors(v),
      extra: lazyTensors(extra),
      meta: null,
    });

  const done = saved?.step ?? 0;
  context.onStart(done);
  for (let step = done + 1; step <= steps; step++) {
    if (dropout !== null) setSeed(dropout.seed, deriveSeed(context.seed, context.stage, "dropout", step));
    const metrics = await freeing((own) => oneStep(step, own));
    checkFinite(context.stage, step, metrics);
    context.onStep(step, metrics);
    await context.breathe();
    if (context.signal.aborted || (step % save_every === 0 && step < steps)) await save(step);
    context.signal.throwIfAborted();
  }
}

async function freeing<R>(work: (own: Own) => Promise<R>): Promise<R> {
  const owned: tf.TensorContainer[] = [];
  try {
    return await work((tensors) => {
      owned.push(tensors as unknown as tf.TensorContainer);
      return tensors;
    });
  } finally {
    tf.dispose(owned);
  }
}

/** After a step whose loss or gradient is not finite the weights are not, either. */
function checkFinite(stage: string, step: number, metrics: Metrics): void {
  for (const [key, name] of [
    ["loss", "loss"],
    ["grad_norm", "norm of the gradient"],
  ] as const) {
    const value = metrics[key];
    if (value === undefined || Number.isFinite(value)) continue;
    throw new TrainingError(
      `${stage}: the ${name} is ${value} at step ${step}; lower learning_rate or max_grad_norm, and start the run again`,
    );
  }
}

const setSeed = (variable: Variable, seed: number): void => tf.tidy(() => variable.assign(tf.scalar(seed, "int32")));

/**
 * Puts the stage's model into its folder, beside the training checkpoints: float32, since a later stage must see what
 * changed. Every file is whole; the folder is once this has returned. An adapter becomes part of the weights. `card` is
 * its README.md; null is none.
 */
export const saveStageModel = (
  dir: string,
  { folder, parameters }: LoadedModel,
  card: string | null = null,
): Promise<void> =>
  saveResult(dir, card, (partial) =>
    saveModel(partial, mergedTensors(folder.config, parameters), {
      from: folder.dir,
      tokenizerFrom: folder.tokenizerDir,
      dtype: "float32",
    }),
  );

/** Puts the stage's adapter, as PEFT stores it, into its folder; `base` is what it calls the model that it is for. */
export const saveStageAdapter = (
  dir: string,
  { folder, parameters }: LoadedModel,
  lora: LoraSettings,
  base: AdapterBase,
  card: string | null = null,
): Promise<void> =>
  saveResult(dir, card, (partial) => {
    const learns = learning({ lora }, Object.keys(parameters));
    return saveAdapter(partial, lazyTensors(adapterOf(parameters, learns)), { from: folder.dir, lora, base });
  });

async function saveResult(dir: string, card: string | null, write: (partial: string) => Promise<void>): Promise<void> {
  const partial = join(dir, "result.partial");
  await mkdir(dir, { recursive: true });
  // A process that was killed may have left a part of it.
  await rm(partial, { recursive: true, force: true });
  await write(partial);
  if (card !== null) await writeFile(join(partial, "README.md"), card);
  for (const name of await readdir(partial)) await rename(join(partial, name), join(dir, name));
  await rm(partial, { recursive: true });
}

/** Tensors whose values are copied from the device when they are read. */
const lazyTensors = (parameters: Parameters): HostTensors =>
  Object.fromEntries(
    Object.entries(parameters).map(([name, variable]) => [
      name,
      {
        shape: variable.shape,
        get values() {
          return downloadTensor(variable);
        },
      },
    ]),
  );
