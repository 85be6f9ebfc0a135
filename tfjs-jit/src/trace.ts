// Recording tfjs code as a graph. While a trace is on, an op goes into the trace's graph instead of being run (hooks.ts),
// and its outputs are symbols: tensors whose id is negative.

import {
  type Attribute,
  backend,
  dtypeName,
  engine,
  type Graph,
  type GraphNode,
  type Inputs,
  native,
  nativeDtype,
  tf,
} from "./native.js";
import { onFreshTape } from "./tape.js";
import type { Variable } from "./variable.js";

/** A hidden input of a root trace: looked up at each call of the compiled function. */
export type Capture =
  | { readonly kind: "variable"; readonly variable: Variable }
  | {
      readonly kind: "tensor";
      readonly dataId: object;
      readonly variable: tf.Variable | null;
      readonly about: string;
      op: string;
    };

/** A tensor of a trace. `about` is the op that made it, for messages; `fill` the scalar that all its elements are. */
type Symbol = { readonly node: GraphNode; readonly about: string; readonly fill: number | null };

/** The value of a Variable within a root trace: read once, written once at the end. */
type VariableState = { readonly resource: number; readonly read: number; value: number };

export type Trace = {
  readonly what: string;
  /** Of the root's TensorFlow function; those of loops and branches begin with it. */
  readonly root: string;
  readonly parent: Trace | null;
  /** Whether XLA will compile it: it has ops of its own, and lacks others. */
  readonly usesXla: boolean;
  readonly graph: Graph;
  readonly symbols: Map<number, Symbol>;
  /** Data ids of tensors made from JavaScript values meanwhile: constants. */
  readonly written: WeakSet<object>;
  /** By type, attributes and inputs: the symbols of the outputs. An op is recorded once. */
  readonly ops: Map<string, number[]>;
  /** By dtype, shape and values. */
  readonly constants: Map<string, number>;
  /** By data id, and by the enclosing trace's symbol: the symbol in this graph. */
  readonly known: Map<object | number, number>;
  /** Root: hidden inputs with their symbols. Nested: the parent's symbols with theirs. */
  readonly captures: { readonly from: Capture | number; readonly symbol: number }[];
  /** Tensors of outside that ops here used: what a gradient of the whole loop or branch would flow to. */
  readonly foreign: Set<tf.Tensor>;
  /** Its tensors that a gradient will need, whatever scope they were made in; disposed when the trace ends. */
  readonly kept: tf.Tensor[];
  /** Root only. */
  readonly variables: Map<Variable, VariableState>;
  /** Names of the functions registered for this trace, shared by all traces under one root. */
  readonly functions: string[];
};

let current: Trace | null = null;
let nextSymbol = -2; // tfjs-node deletes no id below 0, and -1 means "not uploaded yet"
export const isSymbol = (id: number) => id <= -2;

/** The trace that records now; null where ops run at once. */
export const currentTrace = (): Trace | null => current;

/**
 * Runs `body` with its ops recorded in a new graph, nested in the current trace if there is one. Tensors made meanwhile
 * are disposed; what must outlive the trace is taken as symbols within `body`. `usesXla` is for a trace that has no parent.
 */
export function record<R>(what: string, root: string, body: (trace: Trace) => R, usesXla = true): R {
  const parent = current;
  const trace: Trace = {
    what,
    root,
    parent,
    usesXla: parent?.usesXla ?? usesXla,
    graph: native.graphCreate(),
    symbols: new Map(),
    written: new WeakSet(),
    ops: new Map(),
    constants: new Map(),
    known: new Map(),
    captures: [],
    foreign: new Set(),
    kept: [],
    variables: new Map(),
    functions: parent?.functions ?? [],
  };
  current = trace;
  engine.startScope(what);
  try {
    return onFreshTape(() => body(trace));
  } finally {
    for (const tensor of trace.kept) tensor.dispose();
    engine.endScope();
    current = parent;
  }
}

/** Gives a node a symbol. A shape that is not known now cannot be compiled. */
export function addSymbol(trace: Trace, node: GraphNode, about: string, fill: number | null = null): number {
  if (node.shape === null || node.shape.includes(-1))
    throw new Error(
      `${trace.what}: the shape of op ${about} depends on data, which a compiled function cannot have; ` +
        "use a fixed size with a mask, or compute it outside",
    );
  const id = nextSymbol--;
  trace.symbols.set(id, { node, about, fill });
  return id;
}

/** A tfjs tensor for a symbol of the current trace. */
export function tensorOf(trace: Trace, id: number): tf.Tensor {
  const { node } = trace.symbols.get(id)!;
  return backend.createOutputTensor({ id, dtype: node.dtype, shape: node.shape! });
}

/** Two of them on the same tensors are two moments. */
const BARRIER = "XlaOptimizationBarrier";

/**
 * Records one op; inputs are symbols of this trace. Gives the symbols of its outputs: of an op that is recorded already, as
 * it is, those that it has.
 */
export function addOp(
  trace: Trace,
  type: string,
  attributes: readonly Attribute[],
  inputs: Inputs,
  controls: readonly number[] = [],
): number[] {
  const key = type === BARRIER || controls.length > 0 ? null : JSON.stringify([type, attributes, inputs]);
  const known = key === null ? undefined : trace.ops.get(key);
  if (known !== undefined) return known;
  const nodeOf = (id: number) => trace.symbols.get(id)!.node.id;
  const nodes = native.graphOp(
    trace.graph,
    type,
    attributes,
    inputs.map((input) => (typeof input === "number" ? nodeOf(input) : input.map(nodeOf))),
    controls.map(nodeOf),
  );
  const fill = type === "Fill" ? (inputs[1] as number) : null;
  const symbols = nodes.map((node) => addSymbol(trace, node, type, fill));
  if (key !== null) trace.ops.set(key, symbols);
  return symbols;
}

/** A new input of the trace's graph. */
export const addPlaceholder = (trace: Trace, dtype: number, shape: readonly number[], about: string): number =>
  addSymbol(trace, native.graphPlaceholder(trace.graph, dtype, shape), about);

/** The symbol in this trace of any tensor: its own, an enclosing trace's, a constant, or an eager tensor. */
export function symbolOf(trace: Trace, tensor: { dataId: object }): number {
  const { dataId } = tensor;
  const data = backend.tensorMap.get(dataId);
  if (data === undefined) throw new Error(`${trace.what}: a tensor is used after it was disposed`);
  if (tensor instanceof tf.Tensor && !isOwn(trace, tensor)) trace.foreign.add(tensor);
  if (isSymbol(data.id)) return inner(trace, data.id);
  const known = trace.known.get(dataId);
  if (known !== undefined) return known;
  const symbol = isConstant(trace, dataId) ? addConstant(trace, dataId) : capture(trace, dataId);
  trace.known.set(dataId, symbol);
  return symbol;
}

/** The symbol in this trace of a symbol of this or an enclosing trace, through every trace between them. */
export function inner(trace: Trace, id: number): number {
  if (trace.symbols.has(id)) return id;
  if (trace.parent === null)
    throw new Error(
      `${trace.what}: a traced tensor is used after its trace ended; return it from the compiled function instead`,
    );
  const outer = inner(trace.parent, id);
  const known = trace.known.get(outer);
  if (known !== undefined) return known;
  const { node, about } = trace.parent.symbols.get(outer)!;
  const symbol = addPlaceholder(trace, node.dtype, node.shape!, about);
  trace.known.set(outer, symbol);
  trace.captures.push({ from: outer, symbol });
  return symbol;
}

/** Keeps tensors that scopes would dispose before their gradient is taken. Those of enclosing traces live longer anyway. */
export function keep(trace: Trace, tensors: Iterable<tf.Tensor>): void {
  for (const tensor of tensors) {
    if (isOwn(trace, tensor) && !tensor.kept) trace.kept.push(tf.keep(tensor));
  }
}

/** Whether a tensor was made while this trace recorded, and not outside it. */
export const isOwn = (trace: Trace, { dataId }: { dataId: object }): boolean =>
  trace.written.has(dataId) || trace.symbols.has(backend.tensorMap.get(dataId).id);

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Largest int32 tensor from outside that is taken as a constant: axes and shapes, which ops must know to infer theirs. */
const MAX_OUTER_CONSTANT = 16;

function isConstant(trace: Trace, dataId: object): boolean {
  for (let t: Trace | null = trace; t !== null; t = t.parent) if (t.written.has(dataId)) return true;
  const data = backend.tensorMap.get(dataId);
  return data.dtype === native.TF_INT32 && sizeOf(data.shape) <= MAX_OUTER_CONSTANT && variableWith(dataId) === null;
}

const textOf = (value: number): string => (Object.is(value, -0) ? "-0" : `${value}`);

/** The value of a tensor as constants of the graph; equal values (tf.zeros, tf.ones) as one value that is filled in. */
function addConstant(trace: Trace, dataId: object): number {
  const { shape, dtype, values, id } = backend.tensorMap.get(dataId);
  const constant = (of: number) => addSymbol(trace, native.graphConstant(trace.graph, of), "Const");
  if (values === null) return constant(id);
  const upload = (sizes: number[], type: number, numbers: ArrayLike<number>) => {
    const key = numbers.length > MAX_OUTER_CONSTANT ? null : `${type} ${sizes}: ${Array.from(numbers, textOf)}`;
    const known = key === null ? undefined : trace.constants.get(key);
    if (known !== undefined) return known;
    const tensor = native.createTensor(sizes, type, numbers);
    const symbol = constant(tensor);
    native.deleteTensor(tensor);
    if (key !== null) trace.constants.set(key, symbol);
    return symbol;
  };
  const typed = values as Float32Array;
  if (typed.length > MAX_OUTER_CONSTANT && typed.every((value) => Object.is(value, typed[0]))) {
    const dims = upload([shape.length], native.TF_INT32, Int32Array.from(shape));
    const attributes = [typeAttribute("T", dtype), typeAttribute("index_type", native.TF_INT32)];
    return addOp(trace, "Fill", attributes, [dims, upload([], dtype, typed.slice(0, 1))])[0]!;
  }
  return upload(shape, dtype, values);
}

const variableWith = (dataId: object): tf.Variable | null =>
  Object.values(engine.state.registeredVariables).find((variable) => variable.dataId === dataId) ?? null;

/** An eager tensor becomes a hidden input of the root trace, and is passed on from trace to trace. */
function capture(trace: Trace, dataId: object): number {
  if (trace.parent !== null) return inner(trace, symbolOf(trace.parent, { dataId }));
  const { dtype, shape } = backend.tensorMap.get(dataId);
  const about = `${dtypeName(dtype)}[${shape}]`;
  const symbol = addPlaceholder(trace, dtype, shape, "an outer tensor");
  trace.captures.push({ from: { kind: "tensor", dataId, variable: variableWith(dataId), about, op: "" }, symbol });
  return symbol;
}

const rootOf = (trace: Trace): Trace => (trace.parent === null ? trace : rootOf(trace.parent));

/** The state of a Variable in the root trace; `resource` where the caller passes the Variable as an argument. */
export function variableState(trace: Trace, variable: Variable, resource?: number): VariableState {
  const root = rootOf(trace);
  const known = root.variables.get(variable);
  if (known !== undefined) return known;
  let handle = resource;
  if (handle === undefined) {
    handle = addPlaceholder(root, native.TF_RESOURCE, [], "a Variable");
    root.captures.push({ from: { kind: "variable", variable }, symbol: handle });
  }
  const dtype = nativeDtype(variable);
  const nodeId = root.symbols.get(handle)!.node.id;
  const [node] = native.graphOp(root.graph, "ReadVariableOp", [typeAttribute("dtype", dtype)], [nodeId], []);
  const read = addSymbol(root, native.graphSetShape(root.graph, node!.id, variable.shape), "ReadVariableOp");
  const state = { resource: handle, read, value: read };
  root.variables.set(variable, state);
  return state;
}

/** Records the assignments of a finished root trace: each Variable once, after it was read. */
export function addAssignments(trace: Trace): void {
  for (const [variable, { resource, read, value }] of trace.variables)
    if (value !== read)
      addOp(trace, "AssignVariableOp", [typeAttribute("dtype", nativeDtype(variable))], [resource, value], [read]);
}

const timesNamed = new Map<string, number>();

/**
 * A name that no other function of this process's context has, but the same in each process that traces the same: the
 * compile cache knows programs by it.
 */
export function functionName(what: string): string {
  const name = what.replace(/\W+/g, "_");
  const times = timesNamed.get(name) ?? 0;
  timesNamed.set(name, times + 1);
  return `${name}_${times}`;
}

/** Registers the trace's graph as a TensorFlow function. */
export function finish(trace: Trace, name: string, inputs: readonly number[], outputs: readonly number[]): void {
  const nodeOf = (id: number) => trace.symbols.get(id)!.node.id;
  // A function's output must be an op of its own: inputs and repeated outputs go through Identity.
  const own = outputs.map(
    (id) => addOp(trace, "Identity", [typeAttribute("T", trace.symbols.get(id)!.node.dtype)], [id])[0]!,
  );
  native.graphToFunction(trace.graph, name, inputs.map(nodeOf), own.map(nodeOf));
  trace.functions.push(name);
}

export const stringAttribute = (name: string, value: string): Attribute => ({
  name,
  type: native.TF_ATTR_STRING,
  value,
});

export const typeAttribute = (name: string, dtype: number | readonly number[]): Attribute => ({
  name,
  type: native.TF_ATTR_TYPE,
  value: dtype,
});
