/** A model's weights on the device: one Variable per tensor of the checkpoint, by its name there. */
import { readsBfloat16, tf, Variable } from "tfjs-jit";
import { type Segment, segmentsOf } from "./compute.js";
import type { Weights } from "./forward.js";
import { isPart } from "./quantised.js";
import { layerOf } from "./shapes.js";

export type Parameters = Readonly<Record<string, Variable>>;

/** Tensors in host memory, by name. */
export type HostTensors = Readonly<
  Record<string, { readonly shape: readonly number[]; readonly values: Float32Array }>
>;

const mapValues = <A, B>(record: Readonly<Record<string, A>>, f: (value: A, name: string) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(value, name)]));

/** A Variable with the value of a tensor, which is disposed. */
export function variableOf(tensor: tf.Tensor): Variable {
  const variable = new Variable(tensor);
  tensor.dispose();
  return variable;
}

/** Variables with the values of `weights`, which are disposed one by one: at no moment are there two copies of all. */
export const createParameters = (weights: Weights): Parameters => mapValues(weights, variableOf);

/** Float32 variables of zeros, by their shapes. */
export const zeroParameters = (shapes: Readonly<Record<string, readonly number[]>>): Parameters =>
  mapValues(shapes, (shape) => variableOf(tf.fill([...shape], 0)));

/** Float32 variables like `parameters`, all zero. */
export const zerosLike = (parameters: Parameters): Parameters =>
  zeroParameters(mapValues(parameters, ({ shape }) => shape));

/** Whether some are kept in less than float32. */
export const isCompact = (parameters: Parameters): boolean =>
  Object.entries(parameters).some(([name, { isBfloat16 }]) => isBfloat16 || isPart(name));

/** Whether some become float32 while they are computed with: bfloat16 does not where products read it as it is. */
export const isExpanded = (parameters: Parameters): boolean =>
  Object.entries(parameters).some(([name, { isBfloat16 }]) => (isBfloat16 && !readsBfloat16) || isPart(name));

/** Layers in loops: neighbours are one where their tensors agree in shapes and dtypes, and in what `of` says of them. */
export function layersAlike(all: Parameters, of: (tensor: string) => boolean = () => true): Segment[] {
  const kinds: string[][] = [];
  for (const [tensor, { shape, isBfloat16 }] of Object.entries(all)) {
    const own = layerOf(tensor);
    if (own === null) continue;
    kinds[own.layer] ??= [];
    kinds[own.layer]!.push(`${own.name} ${shape} ${isBfloat16} ${of(tensor)}`);
  }
  return segmentsOf(kinds.length, (layer) => kinds[layer]!.join());
}

/** Variables with copies of the values. */
export const copyParameters = (parameters: Parameters): Parameters =>
  mapValues(parameters, (variable) => variableOf(variable.read()));

/** The values as tensors, to compute with. Outside jit the caller disposes them (tf.tidy). */
export const readParameters = (parameters: Parameters): Weights => mapValues(parameters, (variable) => variable.read());

/** The value in host memory. */
export const downloadTensor = (variable: Variable): Float32Array => hostValues(() => variable.read());

/** The values of what `make` gives, which is freed. tf.tidy would go through an array that it returned, key by key. */
export function hostValues(make: () => tf.Tensor): Float32Array {
  const values: Float32Array[] = [];
  tf.tidy(() => {
    values.push(make().dataSync() as Float32Array);
  });
  return values[0]!;
}

/** Sets the values from host memory; both have the same names. */
export function uploadParameters(parameters: Parameters, values: HostTensors): void {
  for (const [name, variable] of Object.entries(parameters)) {
    const { shape, values: array } = values[name]!;
    tf.tidy(() => variable.assign(tf.tensor(array, [...shape])));
  }
}

export function disposeParameters(parameters: Parameters): void {
  for (const variable of Object.values(parameters)) variable.dispose();
}
