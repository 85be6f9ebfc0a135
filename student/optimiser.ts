/** One optimiser step on Variables, inside a compiled call: gradient, clipping, AdamW, all updated in place. */
import { tf } from "tfjs-jit";
import type { Weights } from "../model/gemma2.js";
import { disposeParameters, type Parameters, readParameters, zerosLike } from "../model/parameters.js";
import { adamwUpdate } from "./adamw.js";
import { clipByGlobalNorm } from "./clip.js";

/** What learns, and AdamW's moments of it. */
export type Trainable = { readonly parameters: Parameters; readonly m: Parameters; readonly v: Parameters };

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

/** Parameters with moments of zero. */
export const createTrainable = (parameters: Parameters): Trainable => ({
  parameters,
  m: zerosLike(parameters),
  v: zerosLike(parameters),
});

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
 * Minimises `lossOf` by one step and gives its value, the norm of its gradient before clipping, and the new weights.
 * To be called inside jit.
 */
export function minimise(
  { parameters, m, v }: Trainable,
  lossOf: (weights: Weights) => tf.Scalar,
  settings: AdamWSettings,
  scalars: StepScalars,
): { loss: tf.Scalar; gradNorm: tf.Scalar; weights: Weights } {
  const { value, gradients } = valueAndGradients(parameters, lossOf);
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
      beta1: settings.adam_beta1,
      beta2: settings.adam_beta2,
      epsilon: settings.adam_epsilon,
      weightDecay,
    });
    variable.assign(next.param);
    m[name]!.assign(next.m);
    v[name]!.assign(next.v);
    weights[name] = next.param;
  }
  return { loss: value, gradNorm: norm, weights };
}

/** Frees the moments; the parameters stay. */
export function disposeMoments({ m, v }: Trainable): void {
  disposeParameters(m);
  disposeParameters(v);
}
