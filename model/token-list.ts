/**
 * Sequences of different lengths as one list of tokens, without the padding between them. Whatever works token by token
 * runs on the list; attention alone needs a grid of B rows of T slots, and the list says where in it each token stands.
 *
 * A row is a prompt and any number of completions of it, which share the prompt's keys and values: the prompt's tokens
 * are segment 0, those of completion g are segment g + 1.
 */

/** Where n tokens stand in a grid, and back. */
export type Layout = {
  readonly rows: number;
  readonly slots: number;
  /** [rows * slots]: which token of the list; -1 for padding. */
  readonly tokenOfSlot: Int32Array;
  /** [size of the list]: row * slots + slot; 0 for what fills up the list. */
  readonly slotOfToken: Int32Array;
  /** Whether the slot of every token is its position, in all batches of a kind: each answer is a program. */
  readonly inOrder: boolean;
};

/** A list of tokens; what fills it up at its end has id, position and segment 0, and nothing looks at it. */
export type TokenList = {
  readonly ids: Int32Array;
  readonly positions: Int32Array;
  readonly segments: Int32Array;
  readonly layout: Layout;
  /** The tokens whose hidden states are wanted, as indices into the list, and where they stand as queries. */
  readonly wanted: { readonly tokens: Int32Array; readonly layout: Layout };
};

/** A row of tokens; which of them are wanted, by their place in the row. */
export type Row = { ids: number[]; positions: number[]; segments: number[]; wanted: number[] };

/** One sequence without branches. */
export const linear = (ids: readonly number[]) => ({
  ids: [...ids],
  positions: ids.map((_, t) => t),
  segments: ids.map(() => 0),
});

type ListSizes = {
  readonly slots: number;
  readonly queries: number;
  /** Tokens that all rows begin with. */
  readonly sharedPrefix: number;
  readonly size: number;
  readonly wantedSize: number;
  /** Whether the rows of all batches of this kind are each one sequence, whose places are its positions. */
  readonly inOrder: boolean;
};

/** Rows as a list of `size` tokens: the shared prefix, then the rest of each row. */
export function listRows(
  rows: readonly Row[],
  { slots, queries, sharedPrefix, size, wantedSize, inOrder }: ListSizes,
): TokenList {
  const layout = { ...emptyLayout(rows.length, slots, size), inOrder };
  const list = { ids: new Int32Array(size), positions: new Int32Array(size), segments: new Int32Array(size), layout };
  const wanted = { tokens: new Int32Array(wantedSize), layout: emptyLayout(rows.length, queries, wantedSize) };
  let [firstOwn, query] = [sharedPrefix, 0];
  rows.forEach((row, r) => {
    const tokenAt = (place: number) => (place < sharedPrefix ? place : firstOwn + place - sharedPrefix);
    row.ids.forEach((id, place) => {
      const token = tokenAt(place);
      layout.tokenOfSlot[r * slots + place] = token;
      if (place < sharedPrefix && r > 0) return;
      layout.slotOfToken[token] = r * slots + place;
      list.ids[token] = id;
      list.positions[token] = row.positions[place]!;
      list.segments[token] = row.segments[place]!;
    });
    row.wanted.forEach((place, q) => {
      wanted.tokens[query] = tokenAt(place);
      wanted.layout.slotOfToken[query] = r * queries + q;
      wanted.layout.tokenOfSlot[r * queries + q] = query++;
    });
    firstOwn += Math.max(0, row.ids.length - sharedPrefix);
  });
  return { ...list, wanted };
}

const emptyLayout = (rows: number, slots: number, size: number): Layout => ({
  rows,
  slots,
  tokenOfSlot: new Int32Array(rows * slots).fill(-1),
  slotOfToken: new Int32Array(size),
  inOrder: false,
});
