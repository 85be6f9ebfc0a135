/** Rows sorted by length, so that a batch is not padded to one long row; their results in the order that the rows came in. */

/** A row, with its place among all. */
export type Placed<T> = { readonly place: number; readonly row: T };

/**
 * The rows in the order in which to go through them: `together` at a time, the longest of them first, so that what does
 * not fit into memory fails soon. Rows of one length stay in their order.
 */
export function longestFirst<T>(rows: readonly T[], lengthOf: (row: T) => number, together: number): Placed<T>[] {
  const sorted: Placed<T>[] = [];
  for (let begin = 0; begin < rows.length; begin += together) {
    const some = rows.slice(begin, begin + together).map((row, i) => ({ place: begin + i, row }));
    sorted.push(...some.sort((a, b) => lengthOf(b.row) - lengthOf(a.row)));
  }
  return sorted;
}

/** Hands on values in the order of their places 0, 1, 2, ...: each waits for those before it. */
export function inOrder<T>(use: (value: T) => Promise<void>): (place: number, value: T) => Promise<void> {
  const waiting = new Map<number, T>();
  let next = 0;
  return async (place, value) => {
    waiting.set(place, value);
    for (; waiting.has(next); next++) {
      const first = waiting.get(next)!;
      waiting.delete(next);
      await use(first);
    }
  };
}
