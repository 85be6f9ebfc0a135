// What loops and branches share: their parts, traced as TensorFlow functions, and how these become ops.

import { type Attribute, describe, native, tf } from "./native.js";
import {
  addOp,
  addPlaceholder,
  finish,
  functionName,
  inner,
  record,
  symbolOf,
  type Trace,
  tensorOf,
  typeAttribute,
} from "./trace.js";
import { leavesOf, mapTree } from "./tree.js";

export type Branch = {
  readonly trace: Trace;
  readonly name: string;
  readonly inputs: number[];
  readonly result: unknown;
  /** Of the result, by the time that it is traced: its tensors end with the trace. */
  readonly kinds: readonly string[];
  readonly outputs: tf.Tensor[];
  readonly symbols: number[];
};

/** Records `fn` on placeholders like `initial`. */
export function traceBranch(
  what: string,
  outer: Trace,
  initial: readonly tf.Tensor[],
  fn: (inputs: tf.Tensor[]) => unknown,
): Branch {
  return record(what, outer.root, (trace) => {
    const inputs = initial.map((tensor) => {
      const { dtype, shape } = outer.symbols.get(symbolOf(outer, tensor))!.node;
      return addPlaceholder(trace, dtype, shape!, "a loop variable");
    });
    const result = fn(inputs.map((symbol) => tensorOf(trace, symbol)));
    const outputs = tensorsOf(what, result);
    return {
      trace,
      name: functionName(`${outer.root}_${what}`),
      inputs,
      result,
      kinds: kindsOf(result),
      outputs,
      symbols: outputs.map((tensor) => symbolOf(trace, tensor)),
    };
  });
}

const capturedBy = (...parts: readonly Branch[]): number[] => [
  ...new Set(parts.flatMap(({ trace }) => trace.captures.map(({ from }) => from as number))),
];

/** The loop of a traced condition and body from `initial`, symbols of `trace`. Gives the symbols of its results. */
export function addWhile(trace: Trace, test: Branch, step: Branch, initial: readonly number[]): number[] {
  const captures = capturedBy(test, step);
  const passed = captures.map((symbol) => inner(step.trace, symbol));
  finish(test.trace, test.name, [...test.inputs, ...captures.map((symbol) => inner(test.trace, symbol))], test.symbols);
  finish(step.trace, step.name, [...step.inputs, ...passed], [...step.symbols, ...passed]);
  const all = [...initial, ...captures];
  const nodes = all.map((symbol) => trace.symbols.get(symbol)!.node);
  const attributes = [
    typeAttribute(
      "T",
      nodes.map(({ dtype }) => dtype),
    ),
    functionAttribute("cond", test.name),
    functionAttribute("body", step.name),
    shapesAttribute(nodes.map(({ shape }) => shape!)),
  ];
  return addOp(trace, "StatelessWhile", attributes, [all]).slice(0, initial.length);
}

/** The choice between two traced branches by a bool scalar. Gives the symbols of its results. */
export function addIf(trace: Trace, predicate: number, yes: Branch, no: Branch): number[] {
  const attributes = [
    typeAttribute("Tcond", native.TF_BOOL),
    functionAttribute("then_branch", yes.name),
    functionAttribute("else_branch", no.name),
  ];
  return addChoice(trace, "StatelessIf", attributes, predicate, [yes, no]);
}

/** The choice between traced branches by an int32 scalar. Gives the symbols of its results. */
export function addCase(trace: Trace, index: number, branches: readonly Branch[]): number[] {
  const names = branches.map(({ name }) => name);
  return addChoice(trace, "StatelessCase", [functionAttribute("branches", names)], index, branches);
}

function addChoice(
  trace: Trace,
  type: string,
  attributes: readonly Attribute[],
  chooser: number,
  branches: readonly Branch[],
): number[] {
  const captures = capturedBy(...branches);
  for (const branch of branches)
    finish(
      branch.trace,
      branch.name,
      captures.map((symbol) => inner(branch.trace, symbol)),
      branch.symbols,
    );
  const [first] = branches as [Branch];
  const nodes = first.symbols.map((symbol) => first.trace.symbols.get(symbol)!.node);
  const types = [
    typeAttribute(
      "Tin",
      captures.map((symbol) => trace.symbols.get(symbol)!.node.dtype),
    ),
    typeAttribute(
      "Tout",
      nodes.map(({ dtype }) => dtype),
    ),
    shapesAttribute(nodes.map(({ shape }) => shape!)),
  ];
  return addOp(trace, type, [...attributes, ...types], [chooser, captures]);
}

const functionAttribute = (name: string, value: string | readonly string[]): Attribute => ({
  name,
  type: native.TF_ATTR_FUNC,
  value,
});
const shapesAttribute = (value: readonly (readonly number[])[]): Attribute => ({
  name: "output_shapes",
  type: native.TF_ATTR_SHAPE,
  value,
});

/** The structure of `like` with its tensors replaced in order; null stays. */
export function rebuild<V>(like: V, tensors: readonly tf.Tensor[]): V {
  let i = 0;
  return mapTree(like, (leaf) => (leaf === null ? null : tensors[i++])) as V;
}

export function tensorsOf(what: string, tree: unknown, mayHoldNull = false): tf.Tensor[] {
  return leavesOf(tree).flatMap(({ leaf, path }) => {
    if (leaf instanceof tf.Tensor) return [leaf];
    if (leaf === null && mayHoldNull) return [];
    throw new TypeError(
      `${what}: ${path || "the value"} is ${leaf === null ? "null" : `a ${typeof leaf}`}; expected a tensor`,
    );
  });
}

/** What the state of a loop must keep, and the results of branches must share: where each tensor is, shape and dtype. */
export const kindsOf = (tree: unknown): string[] =>
  leavesOf(tree).map(({ leaf, path }) => `${path}${path && " "}${describe(leaf as tf.Tensor)}`);

export function checkSame(
  what: string,
  left: readonly string[],
  whenLeft: string,
  right: readonly string[],
  whenRight: string,
): void {
  for (let i = 0; i < Math.max(left.length, right.length); i++)
    if (left[i] !== right[i])
      throw new TypeError(
        `${what}: ${left[i] ?? "nothing"} ${whenLeft}, but ${right[i] ?? "nothing"} ${whenRight}; shapes and dtypes must agree`,
      );
}
