// Loops and branches that depend on data: traced inside jit, plain JavaScript outside it.

import {
  addCase,
  addIf,
  addWhile,
  type Branch,
  checkSame,
  kindsOf,
  rebuild,
  tensorsOf,
  traceBranch,
} from "./branch.js";
import { describe, tf } from "./native.js";
import { onTape } from "./tape.js";
import { currentTrace, symbolOf, type Trace, tensorOf } from "./trace.js";
import { mapTree } from "./tree.js";

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
    if (test.outputs.length !== 1 || describe(test.outputs[0]!) !== "bool[]")
      throw new TypeError(
        `${what}: the condition must be one bool scalar, got ${test.outputs.map(describe).join(", ")}`,
      );
    checkSame(what, kindsOf(vars), "on entry", step.kinds, "after the body");
    return { result: vars, outputs: addWhile(trace, test, step, symbols), parts: [test, step] };
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
    checkSame(what, yes.kinds, "in the true branch", no.kinds, "in the false branch");
    return { result: yes.result, outputs: addIf(trace, symbolOf(trace, predicate), yes, no), parts: [yes, no] };
  });
}

/**
 * The branch whose number, from 0, is in an int32 scalar; a number outside is the last one's. All branches give tensors of
 * the same nesting, shapes and dtypes. Traced, it has no gradient.
 */
export function switchCase<V>(index: tf.Tensor, branches: readonly (() => V)[]): V {
  const trace = currentTrace();
  if (trace === null)
    return tf.tidy(() => {
      const number = index.dataSync()[0]!;
      return (branches[number] ?? branches.at(-1)!)() as tf.TensorContainer;
    }) as V;
  const what = `${trace.what}: switchCase`;
  if (describe(index) !== "int32[]")
    throw new TypeError(`${what}: the index must be an int32 scalar, got ${describe(index)}`);
  return withoutGradient(what, trace, [index], () => {
    const parts = branches.map((branch, i) => traceBranch(`${what} branch ${i}`, trace, [], branch));
    const [first, ...others] = parts as [Branch, ...Branch[]];
    for (const [i, { kinds }] of others.entries())
      checkSame(what, first.kinds, "in branch 0", kinds, `in branch ${i + 1}`);
    return { result: first.result, outputs: addCase(trace, symbolOf(trace, index), parts), parts };
  });
}

function loopNow<V>(condition: (vars: V) => tf.Tensor, body: (vars: V) => V, vars: V): V {
  const initial = new Set(tensorsOf("whileLoop", vars));
  let now = tf.tidy(() => mapTree(vars, (leaf) => (leaf as tf.Tensor).clone()) as tf.TensorContainer) as V;
  while (tf.tidy(() => condition(now).dataSync()[0])) {
    const next = tf.tidy(() => body(now) as tf.TensorContainer) as V;
    checkSame("whileLoop", kindsOf(vars), "on entry", kindsOf(next), "after the body");
    const kept = new Set(tensorsOf("whileLoop", next));
    for (const tensor of tensorsOf("whileLoop", now)) if (!kept.has(tensor) && !initial.has(tensor)) tensor.dispose();
    now = next;
  }
  return now;
}

/**
 * Runs `build` as one op of the tape whose gradient is an error: silence would be a wrong gradient. The tape must know
 * every tensor that flows in, also those that only the parts refer to.
 */
function withoutGradient<V>(
  what: string,
  trace: Trace,
  inputs: readonly tf.Tensor[],
  build: () => { result: V | unknown; outputs: readonly number[]; parts: readonly Branch[] },
): V {
  let result: unknown;
  const outputs = onTape(
    () => {
      const built = build();
      result = built.result;
      const foreign = built.parts.flatMap((part) => [...part.trace.foreign]);
      for (const tensor of foreign) symbolOf(trace, tensor);
      return {
        outputs: built.outputs.map((symbol) => tensorOf(trace, symbol)),
        inputs: [...inputs, ...foreign],
      };
    },
    () => {
      throw new Error(`${what} has no gradient; take the gradient inside its body, or write the loop out`);
    },
  );
  return rebuild(result, outputs) as V;
}
