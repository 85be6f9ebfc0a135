// scan: a loop over rows that has a gradient.

import { toDtypeOf } from "./bfloat16.js";
import { rebuild, tensorsOf } from "./branch.js";
import { tf } from "./native.js";
import { countRows, describeSource, type Row, Rows, sourcesOf, tensorsIn, unstackRows } from "./rows.js";
import { addScan, iterate, type Loop, type ScanStep } from "./scan-loop.js";
import { isTapeOn, onTape, pullBack } from "./tape.js";
import { currentTrace, keep, type Trace } from "./trace.js";

export type ScanOptions = {
  /** From the last row to the first; a y stays in the row of its x. */
  readonly reverse?: boolean;
};

/**
 * `fn` from row to row: [carry, y] = fn(carry, x), beginning with `init`. Gives the last carry and the ys stacked along
 * axis 0, as the tensors of `xs` are (lax.scan of JAX) unless they are lists of tensors, see `eachOf`. Carry, x and y are tensors nested in arrays and plain objects; the
 * carry keeps its shapes and dtypes; y may be null. Traced, it is one loop: a program that does not grow with the rows.
 *
 * It has a gradient: in init, xs, and the float tensors from outside that fn refers to. Traced, that runs the loop
 * backwards and computes each iteration again from its carry, all that is kept of it: fn is called more than once, and
 * must do the same each time.
 */
export function scan<C, X, Y>(fn: ScanStep<C, X, Y>, init: C, xs: X, options: ScanOptions = {}): [C, Y] {
  const trace = currentTrace();
  const what = trace === null ? "scan" : `${trace.what}: scan`;
  const loop = { what, fn, init, xs, rows: rowsOf(what, xs), isReverse: options.reverse ?? false, keepsCarries: false };
  return trace === null ? scanNow(loop) : scanTraced(trace, { ...loop, keepsCarries: isTapeOn() });
}

function rowsOf(what: string, xs: unknown): number {
  const sources = sourcesOf(`${what}: xs`, xs);
  if (sources.length === 0)
    throw new TypeError(`${what}: xs has no tensor; for n iterations pass tf.range(0, n, 1, "int32")`);
  const rows = countRows(sources[0]!.source);
  if (rows > 0 && sources.every(({ source }) => countRows(source) === rows)) return rows;
  const got = sources.map(({ path, source }) => `${path}${path && " "}${describeSource(source)}`);
  throw new TypeError(`${what}: the tensors of xs must have one number of rows, at least 1; got ${got.join(", ")}`);
}

function scanNow<C, X, Y>(loop: Loop<C, X, Y>): [C, Y] {
  const { what, init, xs, rows, isReverse } = loop;
  return tf.tidy(() => {
    // Unstacked at once: the gradient of a slice would be as large as all rows, once a row.
    const xsByRow = sourcesOf(what, xs).map(({ source }) => unstackRows(source));
    const ysByRow: tf.Tensor[][] = [];
    let y: unknown = null;
    let carry = tensorsOf(what, init).map((tensor) => tensor.clone());
    for (let n = 0; n < rows; n++) {
      const row = isReverse ? rows - 1 - n : n;
      const x = xsByRow.map((tensors) => tensors[row]!);
      const { next, ys } = tf.tidy(() => {
        const made = iterate(loop, carry, x);
        y = made.y;
        return { next: made.next.map((tensor) => tensor.clone()), ys: made.ys.map((tensor) => tensor.clone()) };
      });
      ysByRow[row] = ys;
      for (const tensor of carry) tensor.dispose();
      carry = next;
    }
    const ys = ysByRow[0]!.map((_, k) => tf.stack(ysByRow.map((tensors) => tensors[k]!)));
    return [rebuild(init, carry), rebuild(y, ys)] as tf.TensorContainer;
  }) as [C, Y];
}

function scanTraced<C, X, Y>(trace: Trace, loop: Loop<C, X, Y>): [C, Y] {
  const initial = tensorsOf(loop.what, loop.init);
  const rows = sourcesOf(loop.what, loop.xs).flatMap(({ source }) => tensorsIn(source));
  let foreign: tf.Tensor[] = [];
  let y: unknown = null;
  const outputs = onTape(
    () => {
      const made = addScan(trace, loop);
      ({ foreign, y } = made);
      return { outputs: made.outputs, inputs: [...initial, ...rows, ...foreign].filter(isFloat) };
    },
    (dys, wanted) => {
      const carries = outputs.slice(outputs.length - initial.length);
      return backwards(loop, carries, foreign.filter(isFloat), dys, wanted);
    },
  );
  // A scope may end before the gradient is taken.
  if (loop.keepsCarries) keep(trace, [...rows, ...foreign, ...outputs]);
  return [rebuild(loop.init, outputs), rebuild(y as Y, outputs.slice(initial.length))];
}

const isFloat = ({ dtype }: tf.Tensor): boolean => dtype === "float32";

/**
 * The gradients of a loop: a loop in the other direction whose carry is the gradient of the carry, with the sums of those
 * of the tensors from outside; its ys are the gradients of the xs. Being a scan, it has a gradient itself.
 */
function backwards<C, X, Y>(
  loop: Loop<C, X, Y>,
  carries: readonly tf.Tensor[],
  outer: readonly tf.Tensor[],
  dys: readonly (tf.Tensor | null)[],
  wanted: readonly number[],
): tf.Tensor[] {
  const sources = sourcesOf(loop.what, loop.xs).map(({ source }) => source);
  // The inputs are numbered: float tensors of init, of xs, from outside.
  const initEnd = carries.filter(isFloat).length;
  const ofXs = sources.flatMap((source, k) => tensorsIn(source).map((tensor, row) => ({ k, row, tensor })));
  const floatsOfXs = ofXs.filter(({ tensor }) => isFloat(tensor));
  const xsEnd = initEnd + floatsOfXs.length;
  const wantedOfXs = wanted.filter((n) => n >= initEnd && n < xsEnd).map((n) => floatsOfXs[n - initEnd]!);
  const wantedXs = [...new Set(wantedOfXs.map(({ k }) => k))];
  const wantedOuter = wanted.filter((n) => n >= xsEnd).map((n) => outer[n - xsEnd]!);
  const ysWithGradient = [...dys.keys()].slice(carries.length).filter((k) => dys[k] !== null);

  type State = { carry: tf.Tensor[]; outer: tf.Tensor[] };
  const backXs = { carry: [...carries], x: sources, dy: ysWithGradient.map((k) => dys[k]!) };
  const back = (state: State, { carry, x, dy }: Row<typeof backXs>): readonly [State, tf.Tensor[]] => {
    const at = [...carry.filter(isFloat), ...wantedXs.map((k) => x[k]!), ...wantedOuter];
    const again = () => {
      const { next, ys } = iterate(loop, carry, x);
      return [...next.filter(isFloat), ...ysWithGradient.map((k) => ys[k - carries.length]!)];
    };
    const gradients = pullBack(again, at, [...state.carry, ...dy]);
    const ofOuter = gradients.slice(initEnd + wantedXs.length);
    return [
      {
        // The state of a loop keeps its dtype, so a bfloat16 carry has a bfloat16 gradient.
        carry: gradients.slice(0, initEnd).map((gradient, k) => toDtypeOf(state.carry[k]!, gradient)),
        outer: state.outer.map((sum, k) => sum.add(ofOuter[k]!)),
      },
      gradients.slice(initEnd, initEnd + wantedXs.length),
    ];
  };
  const last = carries.flatMap((tensor, k) => {
    if (!isFloat(tensor)) return [];
    return [toDtypeOf(tensor, dys[k] ?? tf.fill(tensor.shape.slice(1), 0))];
  });
  const [first, dXs] = scan(
    back,
    { carry: last, outer: wantedOuter.map((tensor) => tf.fill(tensor.shape, 0)) },
    backXs,
    {
      reverse: !loop.isReverse,
    },
  );
  const dInit = wanted.filter((n) => n < initEnd).map((n) => first.carry[n]!);
  const rowsOfDXs = dXs.map((dX, i) => (sources[wantedXs[i]!] instanceof Rows ? unstackRows(dX) : [dX]));
  const dOfXs = wantedOfXs.map(({ k, row }) => rowsOfDXs[wantedXs.indexOf(k)]![row]!);
  return [...dInit, ...dOfXs, ...first.outer];
}
