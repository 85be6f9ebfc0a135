// jit: a tfjs function, compiled once per input shapes and dtypes.

import { createHash } from "node:crypto";
import { announced } from "./compilations.js";
import { mendCompileCache } from "./compile-cache.js";
import { type Attribute, backend, describe, engine, native, nativeDtype, tf } from "./native.js";
import {
  addAssignments,
  addPlaceholder,
  type Capture,
  currentTrace,
  finish,
  functionName,
  record,
  symbolOf,
  type Trace,
  tensorOf,
  variableState,
} from "./trace.js";
import { leavesOf, mapTree } from "./tree.js";
import { Variable } from "./variable.js";

/** A function that jit made. */
export type Jitted<A extends readonly unknown[], R> = {
  (...args: A): R;
  /** How many programs were compiled: one per combination of shapes, dtypes and non-tensor arguments. */
  readonly programs: number;
  /** Forgets the programs; a later call compiles again. */
  dispose(): void;
};

type Program = {
  readonly name: string;
  readonly captures: readonly Capture[];
  /** The function's result, with an index into the outputs where a tensor stands. */
  readonly result: unknown;
  readonly outputs: number;
  /** The program's own function and those of its loops and branches. */
  readonly functions: readonly string[];
};

class Output {
  constructor(readonly index: number) {}
}

/** HEDDLE_JIT=0 runs everything op by op. Read at each call, so that a test can compare the two. */
const isOff = () => process.env.HEDDLE_JIT === "0";

export type JitOptions = {
  /** For messages and `onCompile`; that of the function where there is none. */
  readonly name?: string;
  /**
   * Without XLA the graph runs on TensorFlow's own kernels: op after op, but with no JavaScript in between, and nothing to
   * compile. On a CPU their bfloat16 matrix products are faster than XLA's.
   * @default true
   */
  readonly xla?: boolean;
};

const MUST_COMPILE: readonly Attribute[] = [{ name: "_XlaMustCompile", type: native.TF_ATTR_BOOL, value: true }];

/**
 * `fn` compiled by XLA: same arguments and results. Arguments and results are tensors in nested arrays and plain
 * objects; arguments may also hold Variables, numbers, strings and booleans (each value compiles its own program).
 * Gradients are taken inside `fn`. What `fn` refers to from outside is looked up at each call: eager tensors, tf.Variable
 * and Variable; only int32 tensors of at most 16 elements are frozen in. Inside another jit it is inlined; within a
 * gradient that was begun outside it runs op by op.
 */
export function jit<A extends readonly unknown[], R>(fn: (...args: A) => R, options: JitOptions = {}): Jitted<A, R> {
  const name = options.name ?? (fn.name || "anonymous");
  const what = `jit(${name})`;
  const usesXla = options.xla ?? true;
  const programs = new Map<string, Program>();
  const call = (...args: A): R => {
    if (currentTrace() !== null) return fn(...args);
    if (isOff() || engine.state.activeTape) return tf.tidy(() => fn(...args) as tf.TensorContainer) as R;
    const leaves = leavesOf(args);
    const key = leaves.map(({ leaf, path }) => `${path}=${describeLeaf(what, leaf, path)}`).join();
    const inputs = leaves.flatMap(({ leaf }) =>
      leaf instanceof tf.Tensor || leaf instanceof Variable ? [idOf(what, leaf)] : [],
    );
    const execute = ({ name, captures, result, outputs: count }: Program): R => {
      const hidden = captures.map((capture) => lookUp(what, capture));
      const outputs = native
        .executeOp(name, usesXla ? MUST_COMPILE : [], [...inputs, ...hidden], count)
        .map((meta) => backend.createOutputTensor(meta));
      return mapTree(result, (leaf) => (leaf instanceof Output ? outputs[leaf.index] : leaf)) as R;
    };
    const firstCall = () =>
      announced(name, usesXla, () => {
        const program = compile(what, key, fn, args, usesXla);
        programs.set(key, program);
        return execute(program);
      });
    try {
      const program = programs.get(key);
      return program === undefined ? firstCall() : execute(program);
    } catch (error) {
      if (!mendCompileCache(error)) throw error;
      return firstCall(); // TensorFlow remembers by name what failed
    }
  };
  const dispose = () => {
    for (const { functions } of programs.values()) for (const name of functions) native.removeFunction(name);
    programs.clear();
  };
  return Object.defineProperty(Object.assign(call, { dispose, programs: 0 }), "programs", { get: () => programs.size });
}

function describeLeaf(what: string, leaf: unknown, path: string): string {
  if (leaf instanceof tf.Tensor) return describe(leaf);
  if (leaf instanceof Variable) return `Variable ${describe(leaf)}`;
  if (leaf === null || ["number", "string", "boolean", "undefined"].includes(typeof leaf))
    return `${typeof leaf} ${leaf}`;
  const got = typeof leaf === "object" ? `an instance of ${leaf.constructor.name}` : `a ${typeof leaf}`;
  throw new TypeError(
    `${what}: argument ${path} is ${got}; expected tensors, Variables, numbers, strings or booleans, nested in arrays and plain objects`,
  );
}

function idOf(what: string, leaf: tf.Tensor | Variable): number {
  if (leaf.isDisposed) throw new Error(`${what}: an argument of ${describe(leaf)} was disposed`);
  return leaf instanceof Variable ? leaf.handle : backend.getInputTensorIds([leaf])[0]!;
}

function lookUp(what: string, capture: Capture): number {
  if (capture.kind === "variable") {
    if (capture.variable.isDisposed)
      throw new Error(`${what}: the Variable ${describe(capture.variable)} it refers to was disposed`);
    return capture.variable.handle;
  }
  const dataId = capture.variable?.dataId ?? capture.dataId;
  if (!backend.tensorMap.has(dataId))
    throw new Error(
      `${what}: the tensor ${capture.about} that op ${capture.op} refers to was disposed; ` +
        "keep it as long as the compiled function, or pass it as an argument",
    );
  return backend.getInputTensorIds([{ dataId }])[0]!;
}

function compile<A extends readonly unknown[], R>(
  what: string,
  key: string,
  fn: (...args: A) => R,
  args: A,
  usesXla: boolean,
): Program {
  const name = functionName(`${what}_${createHash("sha256").update(key).digest("hex").slice(0, 8)}`);
  const recordProgram = (trace: Trace): Program => {
    const inputs: number[] = [];
    const traced = mapTree(args, (leaf) => {
      if (!(leaf instanceof tf.Tensor || leaf instanceof Variable)) return leaf;
      const isVariable = leaf instanceof Variable;
      const dtype = isVariable ? native.TF_RESOURCE : nativeDtype(leaf);
      const symbol = addPlaceholder(trace, dtype, isVariable ? [] : leaf.shape, "an argument");
      inputs.push(symbol);
      if (!isVariable) return tensorOf(trace, symbol);
      variableState(trace, leaf, symbol);
      return leaf;
    }) as unknown as A;
    const outputs: number[] = [];
    const result = mapTree(fn(...traced), (leaf) => {
      if (!(leaf instanceof tf.Tensor)) return leaf;
      outputs.push(symbolOf(trace, leaf));
      return new Output(outputs.length - 1);
    });
    addAssignments(trace);
    finish(trace, name, [...inputs, ...trace.captures.map(({ symbol }) => symbol)], outputs);
    const captures = trace.captures.map(({ from }) => from as Capture);
    return { name, captures, result, outputs: outputs.length, functions: trace.functions };
  };
  return record(what, name, recordProgram, usesXla);
}
