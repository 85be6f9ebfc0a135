// The traced loop of scan, and one iteration of it.

import { zerosOf } from "./bfloat16.js";
import { addWhile, checkSame, kindsOf, rebuild, tensorsOf, traceBranch } from "./branch.js";
import { tf } from "./native.js";
import { dynamicUpdateSlice } from "./ops.js";
import { type Row, rowAt, sourcesOf } from "./rows.js";
import { addPlaceholder, currentTrace, symbolOf, type Trace, tensorOf } from "./trace.js";

export type ScanStep<C, X, Y> = (carry: C, x: Row<X>) => readonly [C, Y];

export type Loop<C, X, Y> = {
  readonly what: string;
  readonly fn: ScanStep<C, X, Y>;
  readonly init: C;
  readonly xs: X;
  readonly rows: number;
  readonly isReverse: boolean;
  /** Whether the carry that an iteration began with is one more y, for the gradient. */
  readonly keepsCarries: boolean;
};

/** One iteration, on the tensors of a carry and an x. */
export function iterate<C, X, Y>(
  { what, fn, init, xs, keepsCarries }: Loop<C, X, Y>,
  carry: readonly tf.Tensor[],
  x: readonly tf.Tensor[],
): { next: tf.Tensor[]; ys: tf.Tensor[]; y: Y } {
  const before = rebuild(init, carry);
  const result: unknown = fn(before, rebuild(xs, x) as Row<X>);
  if (!Array.isArray(result) || result.length !== 2)
    throw new TypeError(`${what}: fn must give [carry, y]; where there is no y, [carry, null]`);
  const [next, y] = result as [C, Y];
  checkSame(what, kindsOf(before), "on entry", kindsOf(next), "after fn");
  const ys = tensorsOf(`${what}: y`, y, true);
  return { next: tensorsOf(what, next), ys: keepsCarries ? [...ys, ...carry] : ys, y };
}

const int32 = (value: number) => tf.scalar(value, "int32");

/** Adds the loop to a trace. Gives as outputs the last carry and the ys stacked, and the tensors from outside that fn refers to. */
export function addScan<C, X, Y>(trace: Trace, loop: Loop<C, X, Y>) {
  const { what, rows, isReverse } = loop;
  const initial = [int32(0), ...tensorsOf(what, loop.init)];
  const sources = sourcesOf(what, loop.xs).map(({ source }) => source);
  const stacks: { dtype: number; shape: number[]; symbol: number }[] = [];
  let y: unknown = null;
  const body = traceBranch(`${what} body`, trace, initial, ([n, ...carry]) => {
    const inside = currentTrace()!;
    const row = isReverse ? int32(rows - 1).sub(n!) : n!;
    const x = rowAt(trace, inside, sources, row);
    const made = iterate(loop, carry, x);
    y = made.y;
    const filled = made.ys.map((tensor) => {
      const { dtype } = inside.symbols.get(symbolOf(inside, tensor))!.node;
      const shape = [rows, ...tensor.shape];
      const symbol = addPlaceholder(inside, dtype, shape, "a stack");
      stacks.push({ dtype, shape, symbol });
      const block = tensor.reshape([1, ...tensor.shape]);
      return dynamicUpdateSlice(tensorOf(inside, symbol), block, [row, ...tensor.shape.map(() => 0)]);
    });
    return [n!.add(int32(1)), ...made.next, ...filled];
  });
  body.inputs.push(...stacks.map(({ symbol }) => symbol));
  const state = [...initial, ...stacks.map(({ dtype, shape }) => zerosOf(dtype, shape))];
  const condition = traceBranch(`${what} condition`, trace, state, ([n]) => n!.less(int32(rows)));
  const symbols = state.map((tensor) => symbolOf(trace, tensor));
  const [, ...outputs] = addWhile(trace, condition, body, symbols).map((symbol) => tensorOf(trace, symbol));
  const foreign = [...body.trace.foreign];
  for (const tensor of foreign) symbolOf(trace, tensor); // makes it foreign to this trace too, where it is
  return { outputs, y: y as Y, foreign };
}
