/** One optimiser step on Variables, inside a compiled call: gradient, clipping, AdamW, all updated in place. */
import { tf } from "tfjs-jit";
import { ModelError } from "../model/errors.js";
import type { Weights } from "../model/gemma2.js";
import { disposeParameters, type Parameters, readParameters, zerosLike } from "../model/parameters.js";
import { adamwUpdate } from "./adamw.js";
import { clipByGlobalNorm } from "./clip.js";

/** A model in training. */
export type Trainable = {
  /** What learns. */
  readonly parameters: Parameters;
  /** The rest of the model. */
  readonly frozen: Parameters;
  /** AdamW's moments of what learns. */
  readonly m: Parameters;
  readonly v: Parameters;
  /** Gradients of the micro-batches of this step so far; {} where a step is one batch. */
  readonly sums: Parameters;
};

/** Settings that are the same at every step; names as in the config. */
export type AdamWSettings = {
  readonly adam_beta1: number;
  readonly adam_beta2: number;
  readonly adam_epsilon: number;
};

/** Settings that may follow a schedule: scalar tensors, so that one program serves all steps. */
export type StepScalars = {
  /** 1 at the first step. */
  readonly step: tf.Tensor;
  readonly learningRate: tf.Tensor;
  readonly weightDecay: tf.Tensor;
  readonly maxGradNorm: tf.Tensor;
};

/** A step of AdamW: numbers that a compiled step depends on, and what may change, as tensors. */
export type Optimiser = { readonly adamw: AdamWSettings; readonly scalars: StepScalars };

export type TrainableOptions = {
  /** Regular expressions; what learns are the parameters whose names match one of them. @default null: all */
  readonly trainable?: readonly string[] | null;
  /** @default 1 */
  readonly gradient_accumulation_steps?: number;
};

/**
 * Parameters with moments of zero.
 * @throws ModelError if a pattern matches no parameter
 */
export function createTrainable(
  all: Parameters,
  { trainable = null, gradient_accumulation_steps: parts = 1 }: TrainableOptions = {},
): Trainable {
  const learns = trainable === null ? () => true : matcher(trainable, Object.keys(all));
  const pick = (isWanted: boolean) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => learns(name) === isWanted));
  const parameters = pick(true);
  const zeros = () => zerosLike(parameters);
  return { parameters, frozen: pick(false), m: zeros(), v: zeros(), sums: parts === 1 ? {} : zeros() };
}

function matcher(patterns: readonly string[], names: readonly string[]): (name: string) => boolean {
  const expressions = patterns.map((pattern) => new RegExp(pattern));
  const unused = expressions.find((expression) => !names.some((name) => expression.test(name)));
  if (unused !== undefined)
    throw new ModelError(
      "trainable",
      `no tensor's name matches ${unused.source}; the names are ${names.length > 3 ? `${names.slice(0, 2).join(", ")}, ..., ${names.at(-1)}` : names.join(", ")}`,
    );
  return (name) => expressions.some((expression) => expression.test(name));
}

/** Value and gradient of a scalar function of the parameters, by their names. Traceable. */
export function valueAndGradients(
  parameters: Parameters,
  lossOf: (weights: Weights) => tf.Scalar,
): { value: tf.Scalar; gradients: Record<string, tf.Tensor> } {
  const names = Object.keys(parameters);
  const byName = (tensors: readonly tf.Tensor[]) => Object.fromEntries(names.map((name, i) => [name, tensors[i]!]));
  const { value, grads } = tf.valueAndGrads((...tensors: tf.Tensor[]) => lossOf(byName(tensors)))(
    Object.values(readParameters(parameters)),
  );
  return { value: value as tf.Scalar, gradients: byName(grads) };
}

/**
 * Learns from one of a step's micro-batches, of which there may be one only; to be called inside jit. The losses of a
 * step's micro-batches add up to that of the step. All but the last come without an optimiser: their gradient is kept.
 * The last one brings the optimiser's step; it gives the norm of the whole gradient before clipping, and the new weights.
 */
export function learn(
  trainable: Trainable,
  lossOf: (weights: Weights) => tf.Scalar,
  optimiser: Optimiser | null,
): { loss: tf.Scalar; gradNorm: tf.Scalar | null; weights: Weights } {
  const frozen = readParameters(trainable.frozen);
  const { value, gradients } = valueAndGradients(trainable.parameters, (weights) => lossOf({ ...frozen, ...weights }));
  for (const [name, sum] of Object.entries(trainable.sums)) {
    const total = sum.read().add(gradients[name]!);
    gradients[name] = total;
    sum.assign(optimiser === null ? total : tf.zerosLike(total));
  }
  if (optimiser === null) return { loss: value, gradNorm: null, weights: {} };
  const { gradNorm, weights } = update(trainable, gradients, optimiser);
  return { loss: value, gradNorm, weights };
}

function update(
  { parameters, m, v }: Trainable,
  gradients: Record<string, tf.Tensor>,
  { adamw, scalars }: Optimiser,
): { gradNorm: tf.Scalar; weights: Weights } {
  const { grads, norm } = clipByGlobalNorm(gradients, scalars.maxGradNorm);
  const { step, learningRate, weightDecay } = scalars;
  const weights: Record<string, tf.Tensor> = {};
  for (const [name, variable] of Object.entries(parameters)) {
    const next = adamwUpdate({
      param: variable.read(),
      grad: grads[name]!,
      m: m[name]!.read(),
      v: v[name]!.read(),
      step,
      learningRate,
      beta1: adamw.adam_beta1,
      beta2: adamw.adam_beta2,
      epsilon: adamw.adam_epsilon,
      weightDecay,
    });
    variable.assign(next.param);
    m[name]!.assign(next.m);
    v[name]!.assign(next.v);
    weights[name] = next.param;
  }
  return { gradNorm: norm, weights };
}

/** Frees what the optimiser keeps; the model's parameters stay. */
export function disposeOptimiser({ m, v, sums }: Trainable): void {
  for (const parameters of [m, v, sums]) disposeParameters(parameters);
}
