/** Stages that train, in temporary folders. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tf, Variable } from "tfjs-jit";
import { expect, vi } from "vitest";
import type { Metrics, StageContext } from "../../distill/training.js";
import type { LoadedModel } from "../../model/loaded.js";
import type { HostTensors, Parameters } from "../../model/parameters.js";
import { parameterShapes } from "../../model/shapes.js";
import { loadTrainingState, type TrainingState } from "../../student/training-state.js";

/** Settings that all stages have: AdamW as in torch, nothing clipped. */
export const training = {
  save_every: 1000,
  max_new_tokens: 5,
  learning_rate: 1e-3,
  weight_decay: 0,
  max_grad_norm: 1e9,
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  trainable: null,
  lora: null,
  gradient_checkpointing: false,
  gradient_accumulation_steps: 1,
};

export const newFolder = (): Promise<string> => mkdtemp(join(tmpdir(), "heddle-stage-"));

/** A stage that is told to stop after a step: it saves its state and throws `stopped`. */
export function stageContext(dir: string, { stopAfter }: { stopAfter?: number } = {}) {
  const abort = new AbortController();
  const log: Metrics[] = [];
  const starts: number[] = [];
  const context: StageContext = {
    stage: "test",
    seed: 7,
    iteration: 1,
    dir,
    signal: abort.signal,
    breathe: () => Promise.resolve(),
    onStart: (done) => starts.push(done),
    onStep: (step, metrics) => {
      log.push({ step, ...metrics });
      if (step === stopAfter) abort.abort(stopped);
    },
  };
  return { context, log, starts };
}

/** Does work, and expects that all Variables and tensors which it made are freed; those of `kept` were there before. */
export async function expectAllFreed(work: () => Promise<void>, kept: Parameters = {}): Promise<void> {
  const tensors = tf.memory().numTensors;
  // A Variable is assigned its first value.
  const assign = vi.spyOn(Variable.prototype, "assign");
  try {
    await work();
    const before = new Set(Object.values(kept));
    const made = (assign.mock.contexts as Variable[]).filter((variable) => !before.has(variable));
    expect(made.length).toBeGreaterThan(0);
    expect(made.filter(({ isDisposed }) => !isDisposed)).toEqual([]);
    expect(tf.memory().numTensors).toBe(tensors);
  } finally {
    assign.mockRestore();
  }
}

export const stopped = new Error("stopped");

/** The state that a stage of this model left in its folder. */
export async function stateIn(dir: string, { parameters }: LoadedModel): Promise<TrainingState> {
  const shapes = Object.fromEntries(Object.entries(parameters).map(([name, { shape }]) => [name, shape]));
  const state = await loadTrainingState(dir, shapes);
  if (state === undefined) throw new Error(`${dir}: no training state`);
  return state;
}

/** Tensors to compute with; the caller disposes them. */
export const toDevice = (tensors: HostTensors): Record<string, tf.Tensor> =>
  Object.fromEntries(Object.entries(tensors).map(([name, { shape, values }]) => [name, tf.tensor(values, [...shape])]));

/** The model without the layers after its first one, which compiles faster. It shares the parameters that it has. */
export function oneLayer({ folder, parameters }: LoadedModel): LoadedModel {
  const config = { ...folder.config, numHiddenLayers: 1, layerTypes: folder.config.layerTypes.slice(0, 1) };
  const names = Object.keys(parameterShapes(config));
  return {
    folder: { ...folder, config },
    parameters: Object.fromEntries(names.map((name) => [name, parameters[name]!])),
  };
}
