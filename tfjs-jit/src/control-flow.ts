// Loops and branches that depend on data: traced inside jit, plain JavaScript outside it.

import { type Attribute, describe, engine, native, tf } from "./native.js";
import {
  addOp,
  addPlaceholder,
  currentTrace,
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

/**
 * Repeats `body` while `condition` (a bool scalar) holds, from `vars`: tensors nested in arrays and plain objects, each
 * of which keeps its shape and dtype. Both functions may refer to any tensor outside. Traced, it has no gradient.
 */
export function whileLoop<V>(condition: (vars: V) => tf.Tensor, body: (vars: V) => V, vars: V): V {
  const trace = currentTrace();
  if (trace === null) return loopNow(condition, body, vars);
  const what = `${trace.what}: whileLoop`;
  const initial = tensorsOf(what, vars);
  return withoutGradient(what, trace, initial, () => {
    const symbols = initial.map((tensor) => symbolOf(trace, tensor));
    const part = <R>(name: string, fn: (vars: V) => R) =>
      traceBranch(`${what} ${name}`, trace, initial, (inputs) => fn(rebuild(vars, inputs)));
    const test = part("condition", condition);
    const step = part("body", body);
    const [predicate] = test.outputs;
    if (test.outputs.length !== 1 || describe(predicate!) !== "bool[]")
      throw new TypeError(
        `${what}: the condition must be one bool scalar, got ${test.outputs.map(describe).join(", ")}`,
      );
    checkSame(what, leavesOf(vars), "on entry", leavesOf(step.result), "after the body");
    const captures = [...new Set([...capturedBy(test.trace), ...capturedBy(step.trace)])];
    const passed = captures.map((symbol) => inner(step.trace, symbol));
    finish(
      test.trace,
      test.name,
      [...test.inputs, ...captures.map((symbol) => inner(test.trace, symbol))],
      test.symbols,
    );
    finish(step.trace, step.name, [...step.inputs, ...passed], [...step.symbols, ...passed]);
    const all = [...symbols, ...captures];
    const attributes = [
      typeAttribute(
        "T",
        all.map((symbol) => trace.symbols.get(symbol)!.node.dtype),
      ),
      functionAttribute("cond", test.name),
      functionAttribute("body", step.name),
      shapesAttribute(all.map((symbol) => trace.symbols.get(symbol)!.node.shape!)),
    ];
    const outputs = addOp(trace, "StatelessWhile", attributes, [all]).slice(0, symbols.length);
    return { result: vars, outputs, parts: [test.trace, step.trace] };
  });
}

/** `whenTrue()` or `whenFalse()` by a bool scalar. Both give tensors of the same nesting, shapes and dtypes. Traced, it has no gradient. */
export function cond<V>(predicate: tf.Tensor, whenTrue: () => V, whenFalse: () => V): V {
  const trace = currentTrace();
  if (trace === null)
    return tf.tidy(() => (predicate.dataSync()[0] ? whenTrue() : whenFalse()) as tf.TensorContainer) as V;
  const what = `${trace.what}: cond`;
  if (describe(predicate) !== "bool[]")
    throw new TypeError(`${what}: the predicate must be a bool scalar, got ${describe(predicate)}`);
  return withoutGradient(what, trace, [predicate], () => {
    const yes = traceBranch(`${what} true branch`, trace, [], whenTrue);
    const no = traceBranch(`${what} false branch`, trace, [], whenFalse);
    checkSame(what, leavesOf(yes.result), "in the true branch", leavesOf(no.result), "in the false branch");
    const captures = [...new Set([...capturedBy(yes.trace), ...capturedBy(no.trace)])];
    for (const branch of [yes, no])
      finish(
        branch.trace,
        branch.name,
        captures.map((symbol) => inner(branch.trace, symbol)),
        branch.symbols,
      );
    const nodes = yes.symbols.map((symbol) => yes.trace.symbols.get(symbol)!.node);
    const attributes = [
      typeAttribute("Tcond", native.TF_BOOL),
      typeAttribute(
        "Tin",
        captures.map((symbol) => trace.symbols.get(symbol)!.node.dtype),
      ),
      typeAttribute(
        "Tout",
        nodes.map(({ dtype }) => dtype),
      ),
      functionAttribute("then_branch", yes.name),
      functionAttribute("else_branch", no.name),
      shapesAttribute(nodes.map(({ shape }) => shape!)),
    ];
    const outputs = addOp(trace, "StatelessIf", attributes, [symbolOf(trace, predicate), captures]);
    return { result: yes.result, outputs, parts: [yes.trace, no.trace] };
  });
}

function loopNow<V>(condition: (vars: V) => tf.Tensor, body: (vars: V) => V, vars: V): V {
  const initial = new Set(tensorsOf("whileLoop", vars));
  let now = tf.tidy(() => mapTree(vars, (leaf) => (leaf as tf.Tensor).clone()) as tf.TensorContainer) as V;
  while (tf.tidy(() => condition(now).dataSync()[0])) {
    const next = tf.tidy(() => body(now) as tf.TensorContainer) as V;
    checkSame("whileLoop", leavesOf(vars), "on entry", leavesOf(next), "after the body");
    const kept = new Set(tensorsOf("whileLoop", next));
    for (const tensor of tensorsOf("whileLoop", now)) if (!kept.has(tensor) && !initial.has(tensor)) tensor.dispose();
    now = next;
  }
  return now;
}

type Branch = {
  trace: Trace;
  name: string;
  inputs: number[];
  result: unknown;
  outputs: tf.Tensor[];
  symbols: number[];
};

/** Records `fn` on placeholders like `initial`. */
function traceBranch(
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
      outputs,
      symbols: outputs.map((tensor) => symbolOf(trace, tensor)),
    };
  });
}

const capturedBy = (trace: Trace): number[] => trace.captures.map(({ from }) => from as number);

/**
 * Runs `build` as one op of the tape whose gradient is an error: silence would be a wrong gradient. The tape must know
 * every tensor that flows in, also those that only the parts refer to.
 */
function withoutGradient<V>(
  what: string,
  trace: Trace,
  inputs: readonly tf.Tensor[],
  build: () => { result: V | unknown; outputs: readonly number[]; parts: readonly Trace[] },
): V {
  const onTape: Record<string, tf.Tensor> = {};
  let result: unknown;
  const outputs = engine.runKernelFunc({
    inputs: onTape,
    attrs: {},
    forwardFunc: () => {
      const built = build();
      result = built.result;
      const foreign = built.parts.flatMap((part) => [...part.foreign]);
      for (const tensor of foreign) symbolOf(trace, tensor);
      for (const [i, tensor] of [...inputs, ...foreign].entries()) onTape[i] = tensor;
      return built.outputs.map((symbol) => tensorOf(trace, symbol));
    },
    backwardsFunc: () => {
      throw new Error(`${what} has no gradient; take the gradient inside its body, or write the loop out`);
    },
  }) as tf.Tensor[];
  return rebuild(result, outputs) as V;
}

function rebuild<V>(like: V, tensors: readonly tf.Tensor[]): V {
  let i = 0;
  return mapTree(like, () => tensors[i++]) as V;
}

function tensorsOf(what: string, tree: unknown): tf.Tensor[] {
  return leavesOf(tree).map(({ leaf, path }) => {
    if (leaf instanceof tf.Tensor) return leaf;
    throw new TypeError(
      `${what}: ${path || "the value"} is ${leaf === null ? "null" : `a ${typeof leaf}`}; expected a tensor`,
    );
  });
}

type Leaves = ReturnType<typeof leavesOf>;

function checkSame(what: string, a: Leaves, whenA: string, b: Leaves, whenB: string): void {
  const say = ({ leaf, path }: Leaves[number]) => `${path}${path && " "}${describe(leaf as tf.Tensor)}`;
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const left = a[i] ? say(a[i]!) : "nothing";
    const right = b[i] ? say(b[i]!) : "nothing";
    if (left !== right)
      throw new TypeError(`${what}: ${left} ${whenA}, but ${right} ${whenB}; shapes and dtypes must agree`);
  }
}

const functionAttribute = (name: string, value: string): Attribute => ({ name, type: native.TF_ATTR_FUNC, value });
const shapesAttribute = (value: readonly (readonly number[])[]): Attribute => ({
  name: "output_shapes",
  type: native.TF_ATTR_SHAPE,
  value,
});
