/** An adapter that learns (model/lora.ts): its start, its dropout, and the model that it makes. */
import { randomUniform, tf, toFloat32, type Variable } from "tfjs-jit";
import type { ModelConfig } from "../model/config.js";
import type { Weights } from "../model/forward.js";
import { isLoraMatrix, type LoraSettings, loraNames, loraScale, loraShapes, loraTargets } from "../model/lora.js";
import { type HostTensors, hostValues, type Parameters, variableOf } from "../model/parameters.js";
import { dequantised, isQuantised, matrixOf, partNames } from "../model/quantised.js";
import { parameterShapes } from "../model/shapes.js";

/**
 * A new adapter: A uniform in -1/sqrt(in) .. 1/sqrt(in), which is kaiming_uniform_ with a = sqrt(5), and B zero, so that it
 * adds nothing; with its scales. `seedOf` gives the seed (int32) of a matrix by its name.
 */
export function createAdapter(
  config: ModelConfig,
  settings: LoraSettings,
  seedOf: (name: string) => number,
): Parameters {
  const parameters: Record<string, Variable> = {};
  for (const [name, shape] of Object.entries(loraShapes(config, settings))) {
    const bound = 1 / Math.sqrt(shape[1]!);
    const isA = name.endsWith(".lora_A.weight");
    parameters[name] = variableOf(
      tf.tidy(() => (isA ? randomUniform(seedOf(name), 0, shape).mul(2).sub(1).mul(bound) : tf.fill(shape, 0))),
    );
  }
  for (const weight of loraTargets(config, settings))
    parameters[loraNames(weight).scale] = variableOf(tf.scalar(loraScale(settings)));
  return parameters;
}

/** What is left out of the inputs of A: other numbers for every seed. */
export type Dropout = {
  readonly rate: number;
  /** An int32 scalar. It goes up by one with every micro-batch of a step. */
  readonly seed: Variable;
};

export const createDropout = (rate: number): Dropout | null =>
  rate === 0 ? null : { rate, seed: variableOf(tf.scalar(0, "int32")) };

/** What a training step's weights hold beside the parameters, so that the adapter's inputs drop out. Traceable. */
export function dropoutWeights({ rate, seed }: Dropout, names: readonly string[]): Weights {
  const now = seed.read();
  seed.assign(now.add(tf.scalar(1, "int32")));
  const keep = tf.scalar(1 - rate);
  const matrices = names.filter((name) => name.endsWith(".lora_A.weight"));
  return Object.fromEntries(
    matrices.flatMap((name, i) => {
      const names = loraNames(name.replace(/lora_A\.weight$/, "weight"));
      return [
        [names.random, tf.stack([now, tf.scalar(i, "int32")])],
        [names.keep, keep],
      ];
    }),
  );
}

/** The model that base and adapter are together: all of its weights in float32, made when they are read. */
export const mergedTensors = (config: ModelConfig, parameters: Parameters): HostTensors =>
  Object.fromEntries(
    Object.entries(parameterShapes(config)).map(([name, shape]) => [
      name,
      {
        shape,
        get values() {
          return hostValues(() => merged(parameters, name));
        },
      },
    ]),
  );

function merged(parameters: Parameters, name: string): tf.Tensor {
  const { a, b, scale } = loraNames(name);
  const names = [name, ...partNames(name), a, b, scale].filter((own) => parameters[own] !== undefined);
  const weights = Object.fromEntries(names.map((own) => [own, parameters[own]!.read()]));
  const matrix = matrixOf(weights, name);
  const whole = isQuantised(matrix) ? dequantised(matrix) : toFloat32(matrix);
  const [A, B, by] = [weights[a], weights[b], weights[scale]];
  return A && B && by ? whole.add(tf.matMul(B as tf.Tensor2D, A as tf.Tensor2D).mul(by)) : whole;
}

/** The base alone: its own Variables. Not for an adapter that stores some of it whole. */
export const baseOf = (parameters: Parameters): Parameters =>
  Object.fromEntries(Object.entries(parameters).filter(([name]) => !name.includes(".lora_")));

/** What of a model is its adapter, to be stored: matrices, and what learns of the base. */
export const adapterOf = (parameters: Parameters, learns: (name: string) => boolean): Parameters =>
  Object.fromEntries(Object.entries(parameters).filter(([name]) => isLoraMatrix(name) || learns(name)));
