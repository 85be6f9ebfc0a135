// The parts of tfjs and of its native binding that tfjs-jit works with, as types.

import "./environment.js";
import * as tf from "@tensorflow/tfjs-node-gpu";

/** Opaque: a TF_Graph under construction, freed with this value. */
export type Graph = { readonly __graph: unique symbol };

/** An output of an op in a graph. `shape` is null where the rank is unknown, and has -1 where a size is. */
export type GraphNode = { readonly id: number; readonly dtype: number; readonly shape: number[] | null };

/** An attribute of a TensorFlow op; `type` is one of the binding's TF_ATTR_ constants. */
export type Attribute = { readonly name: string; readonly type: number; readonly value: unknown };

/** What the binding says of a tensor that an op made. */
export type TensorMetadata = { id: number; dtype: number; shape: number[] };

/** Ids of inputs; an inner array is one list input. */
export type Inputs = readonly (number | readonly number[])[];

/** binding.cc says what each of these does; those that it does not list are upstream's. */
export type Binding = {
  executeOp(
    type: string,
    attributes: readonly Attribute[],
    inputs: readonly number[],
    outputs: number,
  ): TensorMetadata[];
  createTensor(shape: number[], dtype: number, values: unknown): number;
  deleteTensor(id: number): void;
  getNumOfTensors(): number;
  graphCreate(): Graph;
  graphPlaceholder(graph: Graph, dtype: number, shape: readonly number[]): GraphNode;
  graphConstant(graph: Graph, tensorId: number): GraphNode;
  graphOp(
    graph: Graph,
    type: string,
    attributes: readonly Attribute[],
    inputs: Inputs,
    controls: readonly number[],
  ): GraphNode[];
  graphSetShape(graph: Graph, id: number, shape: readonly number[]): GraphNode;
  graphToFunction(graph: Graph, name: string, inputs: readonly number[], outputs: readonly number[]): void;
  removeFunction(name: string): void;
  tensorNode(id: number): GraphNode;
  tensorDataSync(id: number): tf.backend_util.BackendValues;
  readonly TF_ATTR_STRING: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_SHAPE: number;
  readonly TF_ATTR_FUNC: number;
  readonly TF_FLOAT: number;
  readonly TF_BFLOAT16: number;
  readonly TF_INT32: number;
  readonly TF_UINT8: number;
  readonly TF_BOOL: number;
  readonly TF_RESOURCE: number;
};

/** The backend's record of a tensor's data: values that wait to be uploaded, or the id of a handle. */
export type TensorData = { shape: number[]; dtype: number; id: number; values: ArrayLike<number> | null };

export type Backend = {
  binding: Binding;
  readonly tensorMap: {
    get(dataId: object): TensorData;
    has(dataId: object): boolean;
    set(dataId: object, data: TensorData & { refCount: number }): void;
  };
  getInputTensorIds(tensors: readonly { dataId: object }[]): number[];
  createOutputTensor(metadata: TensorMetadata): tf.Tensor;
  getDTypeInteger(dtype: string): number;
  readSync(dataId: object): tf.backend_util.BackendValues;
  move(dataId: object, ...rest: unknown[]): void;
};

/** An op on the tape that gradients are taken from. */
export type TapeNode = {
  readonly inputs: Record<string, tf.Tensor>;
  readonly saved: readonly tf.Tensor[];
  gradient?: (this: TapeNode, dys: readonly (tf.Tensor | null)[]) => Record<string, () => tf.Tensor>;
};

/** The engine's state that tracing saves and restores; the tape is global, so a trace must start with a fresh one. */
export type EngineState = {
  /** Not set before the first gradient. */
  activeTape?: TapeNode[] | null;
  gradientDepth: number;
  kernelDepth: number;
  /** Of the tensors that tf.memory counts. */
  numBytes: number;
  registeredVariables: Record<string, tf.Variable>;
};

export type Engine = {
  readonly state: EngineState;
  startScope(name?: string): void;
  endScope(result?: unknown): void;
  makeTensorFromTensorInfo(info: { dataId: object; shape: number[]; dtype: tf.DataType }): tf.Tensor;
  trackTensor(tensor: tf.Tensor, backend: unknown): void;
  disposeTensor(tensor: tf.Tensor): void;
  runKernelFunc(kernel: {
    forwardFunc: (backend: unknown, save: (tensors: tf.Tensor[]) => void) => tf.Tensor | tf.Tensor[];
    backwardsFunc: (dy: tf.Tensor | tf.Tensor[], saved: tf.Tensor[]) => Record<string, () => tf.Tensor>;
    inputs: Record<string, tf.Tensor>;
    attrs: Record<string, never>;
  }): tf.Tensor | tf.Tensor[];
  /** Without `allowNoGradients` it fails where y depends on no x; where it depends on some, others have null. */
  gradients(
    f: () => tf.Tensor,
    xs: tf.Tensor[],
    dy: tf.Tensor | null,
    allowNoGradients: boolean,
  ): { value: tf.Tensor; grads: (tf.Tensor | null | undefined)[] };
};

export const backend: Backend = tf.backend() as unknown as Backend;
export const engine: Engine = tf.engine() as unknown as Engine;

/** The binding as compiled: executes ops, whatever is being traced. */
export const native: Binding = backend.binding;

/** A tensor or a Variable; a Variable says itself what it is. */
type Typed = { readonly dtype: tf.DataType; readonly dataId?: object; readonly isBfloat16?: boolean };

/** Whether a tensor or Variable, float32 to tfjs, is bfloat16 in truth. */
export const isBfloat16 = ({ dataId, isBfloat16 = false }: Typed): boolean =>
  dataId === undefined
    ? isBfloat16
    : backend.tensorMap.has(dataId) && backend.tensorMap.get(dataId).dtype === native.TF_BFLOAT16;

/** TensorFlow's number of the dtype. */
export const nativeDtype = (x: Typed): number =>
  isBfloat16(x) ? native.TF_BFLOAT16 : backend.getDTypeInteger(x.dtype);

/** The names of the dtypes that tensors have here. */
export const dtypeName = (dtype: number): string =>
  new Map([
    [native.TF_FLOAT, "float32"],
    [native.TF_BFLOAT16, "bfloat16"],
    [native.TF_INT32, "int32"],
    [native.TF_BOOL, "bool"],
  ]).get(dtype) ?? `TensorFlow dtype ${dtype}`;

/** For messages and keys: float32[2,3]. */
export const describe = (x: Typed & { readonly shape: readonly number[] }): string =>
  `${isBfloat16(x) ? "bfloat16" : x.dtype}[${x.shape}]`;

export { tf };
