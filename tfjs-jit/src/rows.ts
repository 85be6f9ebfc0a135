// What scan runs over: tensors stacked along axis 0, or lists of tensors that are left where they are.

import { int32, op } from "./call-op.js";
import { switchCase } from "./control-flow.js";
import { describe, native, nativeDtype, tf } from "./native.js";
import { dynamicSlice } from "./ops.js";
import { inner, symbolOf, type Trace, tensorOf, typeAttribute } from "./trace.js";
import { leavesOf } from "./tree.js";

/** Tensors of one shape and dtype, as the rows of one that does not exist. */
export class Rows {
  constructor(readonly tensors: readonly tf.Tensor[]) {}
}

/**
 * Tensors of one shape and dtype as rows for `scan`, such as the weights of a model's layers: they are not copied into one,
 * each iteration takes its own.
 */
export function eachOf(tensors: readonly tf.Tensor[]): Rows {
  const other = tensors.find((tensor) => describe(tensor) !== describe(tensors[0]!));
  if (other !== undefined)
    throw new TypeError(
      `eachOf: the tensors must agree in shape and dtype, got ${describe(tensors[0]!)} and ${describe(other)}`,
    );
  return new Rows(tensors);
}

/** What a step of `scan` gets of xs: a tensor for each stack and each list. */
export type Row<X> = X extends Rows | tf.Tensor
  ? tf.Tensor
  : X extends readonly (infer E)[]
    ? Row<E>[]
    : { [K in keyof X]: Row<X[K]> };

/** A leaf of xs. */
export type Source = tf.Tensor | Rows;

export function sourcesOf(what: string, xs: unknown): { source: Source; path: string }[] {
  return leavesOf(xs).map(({ leaf, path }) => {
    if (leaf instanceof tf.Tensor || leaf instanceof Rows) return { source: leaf, path };
    throw new TypeError(
      `${what}: ${path || "the value"} is ${leaf === null ? "null" : `a ${typeof leaf}`}; expected a tensor or eachOf(tensors)`,
    );
  });
}

export const tensorsIn = (source: Source): readonly tf.Tensor[] => (source instanceof Rows ? source.tensors : [source]);

export const countRows = (source: Source): number =>
  source instanceof Rows ? source.tensors.length : (source.shape[0] ?? 0);

export const describeSource = (source: Source): string =>
  source instanceof Rows ? `eachOf ${source.tensors.length} ${describe(source.tensors[0]!)}` : describe(source);

/** All rows, each by itself. */
export function unstackRows(source: Source): readonly tf.Tensor[] {
  if (source instanceof Rows) return source.tensors;
  // The gradient of tf.unstack fails for one row.
  return source.shape[0] === 1 ? [source.reshape(source.shape.slice(1))] : tf.unstack(source);
}

/** A row of each source within the traced body of a loop; the tensors are those of `outer`, which traces around it. */
export function rowAt(outer: Trace, inside: Trace, sources: readonly Source[], row: tf.Tensor): tf.Tensor[] {
  // Not the tensors themselves: foreign to the body is then only what scan's fn refers to.
  const own = (symbol: number) => tensorOf(inside, inner(inside, symbol));
  const lists = sources
    .filter((source) => source instanceof Rows)
    .map(({ tensors }) => tensors.map((tensor) => own(symbolOf(outer, tensor))));
  const picked = lists.length === 0 ? [] : pick(lists, row);
  return sources.map((source) => {
    if (source instanceof Rows) return picked.shift()!;
    const size = source.shape.slice(1);
    const symbol = symbolOf(outer, source);
    const { fill } = outer.symbols.get(symbol)!;
    // A row of what is one number everywhere is made here: no stack of it has to be there.
    if (fill !== null) return fillOf(size, own(fill));
    return dynamicSlice(own(symbol), [row, ...size.map(() => 0)], [1, ...size]).reshape(size);
  });
}

const fillOf = (shape: readonly number[], value: tf.Tensor): tf.Tensor => {
  const attributes = [typeAttribute("T", nativeDtype(value)), typeAttribute("index_type", native.TF_INT32)];
  return op("Fill", attributes, [int32(shape), value])[0]!;
};

/**
 * The tensors of a row of all lists at once. A choice has a function for each branch, which is handed what any of them
 * refers to: many rows are chosen from in two steps, so that this does not grow with their square.
 */
function pick(lists: readonly (readonly tf.Tensor[])[], row: tf.Tensor): tf.Tensor[] {
  const rows = lists[0]!.length;
  const step = Math.ceil(Math.sqrt(rows));
  const branch = (n: number) => () => lists.map((list) => list[n]!);
  if (rows <= 2 * step) return switchCase(row, range(rows).map(branch));
  const group = row.floorDiv(tf.scalar(step, "int32"));
  const within = row.sub(group.mul(tf.scalar(step, "int32")));
  return switchCase(
    group,
    range(Math.ceil(rows / step)).map((g) => {
      const own = range(Math.min(step, rows - g * step)).map((n) => branch(g * step + n));
      return () => switchCase(within, own);
    }),
  );
}

const range = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
