/** One optimiser step on Variables: gradient, clipping, AdamW, all updated in place. */
import { dynamicSlice, type Index, jit, tf, type Variable } from "tfjs-jit";
import type { Segment } from "../model/compute.js";
import type { Weights } from "../model/forward.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { layerOf } from "../model/shapes.js";
import { adamwUpdate } from "./adamw.js";
import { clipFactor, globalNorm } from "./clip.js";
import { dropoutWeights } from "./lora.js";
import { gradientShapes, placeOf, type Trainable } from "./trainable.js";

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

/** A moving average of what learns: after each step, average <- (1 - mu) average + mu parameter. */
export type Average = { readonly of: Parameters; readonly mu: tf.Tensor };

export type StepResult = {
  readonly loss: tf.Tensor;
  /** Of the whole gradient before clipping; null without an optimiser. */
  readonly gradNorm: tf.Tensor | null;
};

/**
 * A training step that minimises `lossOf`, a traceable function of the model's weights and of what else the step is given:
 * tensors and constants.
 *
 * It learns from one of a step's micro-batches, of which there may be one only; their losses add up to that of the step.
 * All but the last come without an optimiser: their gradient is kept. The step is one compiled call, unless the layers
 * are in loops: then the optimiser is one of its own, called for each layer, since a program with an update of every
 * parameter would grow with the layers.
 */
export function trainingStep<A extends readonly unknown[]>(
  name: string,
  lossOf: (weights: Weights, ...args: A) => tf.Scalar,
) {
  type Given = readonly [trainable: Trainable, args: Readonly<A>, optimiser: Optimiser | null, average: Average | null];
  const whole = jit(
    (...[trainable, args, optimiser, average]: Given): StepResult => {
      const { loss, gradients } = gradientsOf(trainable, (weights) => lossOf(weights, ...args), optimiser !== null);
      if (optimiser === null) return { loss, gradNorm: null };
      const gradNorm = globalNorm(Object.values(gradients));
      for (const parameter of Object.keys(trainable.parameters))
        updateParameter(stateOf(trainable, parameter, average), gradients[parameter]!, null, gradNorm, optimiser);
      return { loss, gradNorm };
    },
    { name },
  );
  const gradient = jit(
    (trainable: Trainable, args: Readonly<A>, isLast: boolean) => {
      const { loss, gradients } = gradientsOf(trainable, (weights) => lossOf(weights, ...args), isLast);
      return isLast
        ? { loss, gradNorm: globalNorm(Object.values(gradients)), gradients }
        : { loss, gradNorm: null, gradients: {} };
    },
    { name: `${name} gradient` },
  );
  return (
    trainable: Trainable,
    args: Readonly<A>,
    optimiser: Optimiser | null,
    average: Average | null = null,
  ): StepResult => {
    const { segments } = trainable;
    // A program reads all the state that it is given.
    const model = { ...trainable, m: {}, v: {} };
    if (segments === null) return whole(optimiser === null ? model : trainable, args, optimiser, average);
    const { loss, gradNorm, gradients } = gradient(model, args, optimiser !== null);
    if (optimiser === null || gradNorm === null) return { loss, gradNorm: null };
    for (const { row, parameters } of byRow(trainable, segments)) {
      const index = row === null ? null : tf.scalar(row, "int32");
      const states = parameters.map(({ parameter }) => stateOf(trainable, parameter, average));
      const places = parameters.map(({ place }) => gradients[place]!);
      update(states, places, index, gradNorm, optimiser);
      index?.dispose();
    }
    tf.dispose(gradients);
    return { loss, gradNorm };
  };
}

/** Value and gradient of a scalar function of the parameters, by their names. Traceable. */
export function valueAndGradients(
  parameters: Parameters,
  lossOf: (weights: Weights) => tf.Scalar,
): { value: tf.Scalar; gradients: Record<string, tf.Tensor> } {
  return differentiate(readParameters(parameters), lossOf);
}

function differentiate(
  at: Weights,
  lossOf: (weights: Weights) => tf.Scalar,
): { value: tf.Scalar; gradients: Record<string, tf.Tensor> } {
  const names = Object.keys(at);
  const byName = (tensors: readonly tf.Tensor[]) => Object.fromEntries(names.map((name, i) => [name, tensors[i]!]));
  const { value, grads } = tf.valueAndGrads((...tensors: tf.Tensor[]) => lossOf(byName(tensors)))(Object.values(at));
  return { value: value as tf.Scalar, gradients: byName(grads) };
}

/**
 * The loss, and the gradients of this micro-batch and those before it, by their places. All layers of a loop have one
 * gradient: that by what is added to them, which is nothing.
 */
function gradientsOf(
  trainable: Trainable,
  lossOf: (weights: Weights) => tf.Scalar,
  isLast: boolean,
): { loss: tf.Scalar; gradients: Record<string, tf.Tensor> } {
  const { frozen, parameters, dropout } = trainable;
  const dropped = dropout === null ? {} : dropoutWeights(dropout, Object.keys(parameters));
  const model = { ...readParameters({ ...frozen, ...parameters }), ...dropped };
  const places = Object.entries(gradientShapes(trainable));
  const at = Object.fromEntries(places.map(([name, shape]) => [name, model[name] ?? tf.fill(shape, 0)]));
  const { value: loss, gradients } = differentiate(at, (weights) => lossOf({ ...model, ...weights }));
  for (const [name, sum] of Object.entries(trainable.sums)) {
    const total = sum.read().add(gradients[name]!);
    gradients[name] = total;
    sum.assign(isLast ? tf.zerosLike(total) : total);
  }
  return { loss, gradients };
}

/** A parameter and what the optimiser keeps of it. */
type ParameterState = {
  readonly parameter: Variable;
  readonly m: Variable;
  readonly v: Variable;
  readonly average: { readonly of: Variable; readonly mu: tf.Tensor } | null;
};

const stateOf = ({ parameters, m, v }: Trainable, name: string, average: Average | null): ParameterState => ({
  parameter: parameters[name]!,
  m: m[name]!,
  v: v[name]!,
  average: average && { of: average.of[name]!, mu: average.mu },
});

/** AdamW's step of one parameter, whose gradient may be a row of a stack. Traceable. */
function updateParameter(
  { parameter, m, v, average }: ParameterState,
  gradient: tf.Tensor,
  row: Index | null,
  gradNorm: tf.Scalar,
  { adamw, scalars }: Optimiser,
): void {
  const { shape } = parameter;
  const own =
    row === null ? gradient : dynamicSlice(gradient, [row, ...shape.map(() => 0)], [1, ...shape]).reshape([...shape]);
  const next = adamwUpdate({
    param: parameter.read(),
    grad: own.mul(clipFactor(gradNorm, scalars.maxGradNorm)),
    m: m.read(),
    v: v.read(),
    step: scalars.step,
    learningRate: scalars.learningRate,
    beta1: adamw.adam_beta1,
    beta2: adamw.adam_beta2,
    epsilon: adamw.adam_epsilon,
    weightDecay: scalars.weightDecay,
  });
  parameter.assign(next.param);
  m.assign(next.m);
  v.assign(next.v);
  if (average === null) return;
  const before = average.of.read();
  average.of.assign(before.add(average.mu.mul(next.param.sub(before))));
}

const update = jit(
  (
    states: readonly ParameterState[],
    gradients: readonly tf.Tensor[],
    row: tf.Tensor | null,
    gradNorm: tf.Scalar,
    optimiser: Optimiser,
  ): null => {
    for (const [i, state] of states.entries()) updateParameter(state, gradients[i]!, row, gradNorm, optimiser);
    return null;
  },
  { name: "adamw" },
);

type Row = { readonly row: number | null; readonly parameters: { parameter: string; place: string }[] };

/** What learns, by layer: the parameters whose gradients are in one row of one segment's, and those that have their own. */
function byRow({ parameters }: Trainable, segments: readonly Segment[]): Iterable<Row> {
  const rows = new Map<string, Row>();
  for (const parameter of Object.keys(parameters)) {
    const { name: place, row } = placeOf(parameter, segments);
    const key = row === null ? "" : `${layerOf(parameter)!.layer}`;
    const own = rows.get(key) ?? { row, parameters: [] };
    own.parameters.push({ parameter, place });
    rows.set(key, own);
  }
  return rows.values();
}
