/**
 * Batches of prompts and of completions as lists of tokens (token-list.ts), in sizes that are chosen so that a run
 * compiles few programs.
 */
import { linear, listRows, type TokenList } from "./token-list.js";

/** A prompt of at least one token with completions of at least one token each. */
export type Sequence = {
  readonly prompt: readonly number[];
  readonly completions: readonly (readonly number[])[];
  /** Which tokens of each completion count, at least one; all of them where it is left out. */
  readonly counted?: readonly (readonly boolean[])[];
};

/** Sequences to learn from. W counts the completions' tokens that count, in order, filled up with tokens that do not. */
export type Batch = {
  readonly sequences: readonly Sequence[];
  /** Without each completion's last token, which predicts nothing. What is wanted predicts a completion's token. */
  readonly tokens: TokenList;
  /** [W]: those tokens of the completions. */
  readonly targets: Int32Array;
  /** [W]: 1 where a token counts, else 0. */
  readonly counted: Float32Array;
};

/** What the batches of a run have in common: their sizes are chosen once, so that few programs are compiled. */
export type Sizes = {
  /** Rows of a batch. */
  readonly rows: number;
  /** Completions of a row. */
  readonly samples: number;
  /** Longest completion. */
  readonly maxNewTokens: number;
  readonly longestPrompt: number;
  /** Tokens that all prompts begin with, such as a system prompt: a list holds them once. */
  readonly sharedPrefix: number;
  /** Room for the prompts of a batch in a list. */
  readonly promptTokens: number;
};

/**
 * Sizes for batches drawn from these prompts. The room for prompts is what a random batch stays within, four standard
 * deviations above its mean; a batch that does not gets a list as large as any.
 */
export function sizesOf(
  prompts: readonly (readonly number[])[],
  shape: Pick<Sizes, "rows" | "samples" | "maxNewTokens">,
): Sizes {
  const longestPrompt = longest(prompts);
  const prefix = sharedPrefix(prompts);
  const mean = sum(prompts.map(({ length }) => length)) / prompts.length;
  const variance = sum(prompts.map(({ length }) => (length - mean) ** 2)) / prompts.length;
  const likely = shape.rows * (mean - prefix) + 4 * Math.sqrt(shape.rows * variance);
  const most = shape.rows * (longestPrompt - prefix);
  return { ...shape, longestPrompt, sharedPrefix: prefix, promptTokens: prefix + Math.min(most, Math.ceil(likely)) };
}

/**
 * Sizes for one batch of sequences that nobody has seen before, most of them of up to `likely` tokens, none of more than
 * `limit`: the room for their tokens is rounded up (`paddedLength`). At most `sharedPrefix` tokens are taken for what all
 * begin with, which is the same in other batches.
 */
export function sizesOfBatch(
  sequences: readonly (readonly number[])[],
  { likely, limit, sharedPrefix: most }: Record<"likely" | "limit" | "sharedPrefix", number>,
): Sizes {
  const rows = sequences.length;
  const prefix = Math.min(most, sharedPrefix(sequences));
  const needed = prefix + sum(sequences.map(({ length }) => length - prefix));
  const longestPrompt = longest(sequences) <= likely ? likely : limit;
  const grid = prefix + rows * (paddedLength(longest(sequences), longestPrompt, FEW_SLOTS) - prefix);
  const promptTokens = paddedLength(needed, grid);
  return { rows, samples: 1, maxNewTokens: 1, longestPrompt, sharedPrefix: prefix, promptTokens };
}

/** How many tokens all of them begin with. */
export function sharedPrefix([first, ...others]: readonly (readonly number[])[]): number {
  let length = first!.length;
  for (const ids of others) {
    let same = 0;
    while (same < Math.min(length, ids.length) && ids[same] === first![same]) same++;
    length = same;
  }
  return length;
}

/**
 * The padded length for rows of at most `longest` tokens: each program is compiled for one length, so lengths are
 * rounded up, by at most half, to `limit`, 3/4 of it, 1/2, 3/8, 1/4, ... Lengths up to `short` are not told apart.
 */
export function paddedLength(longest: number, limit: number, short = 16): number {
  let size = limit;
  while (longest <= size / 2 && size > short) size /= 2;
  return Math.ceil(longest <= size * 0.75 && size > short ? size * 0.75 : size);
}

/** The slots of a row of a list: only attention computes with its padding, which up to this many costs next to nothing. */
const FEW_SLOTS = 128;

/** Prompts, of which the last token's hidden state is wanted. Slot t of a row holds its token t. */
export function listPrompts(prompts: readonly (readonly number[])[], sizes: Sizes): TokenList {
  const { longestPrompt, sharedPrefix } = sizes;
  const slots = paddedLength(longest(prompts), longestPrompt, FEW_SLOTS);
  const grid = sharedPrefix + prompts.length * (slots - sharedPrefix);
  return listRows(
    prompts.map((ids) => ({ ...linear(ids), wanted: [ids.length - 1] })),
    {
      slots,
      queries: 1,
      sharedPrefix,
      size: Math.min(grid, roomForPrompts(prompts, sizes)),
      wantedSize: prompts.length,
      inOrder: true,
    },
  );
}

/** Sequences with `sizes.samples` completions each. The completions' tokens are filled up to whole quarters of the most there may be. */
export function listSequences(sequences: readonly Sequence[], sizes: Sizes): Batch {
  const { samples, maxNewTokens, longestPrompt } = sizes;
  const targets: number[] = [];
  const rows = sequences.map(({ prompt, completions, counted }) => {
    const row = linear(prompt);
    const wanted: number[] = [];
    completions.forEach((completion, g) => {
      for (const [n, id] of completion.entries()) {
        if (counted?.[g]?.[n] ?? true) {
          wanted.push(n === 0 ? prompt.length - 1 : row.ids.length - 1);
          targets.push(id);
        }
        if (n === completion.length - 1) continue;
        row.ids.push(id);
        row.positions.push(prompt.length + n);
        row.segments.push(g + 1);
      }
    });
    return { ...row, wanted };
  });
  const completionCount = sequences.length * samples;
  const quarter = Math.ceil((completionCount * maxNewTokens) / 4);
  const inQuarters = (tokens: number) => Math.max(completionCount, Math.ceil(tokens / quarter) * quarter);
  const wantedSize = inQuarters(targets.length);
  const completionTokens = sum(sequences.flatMap(({ completions }) => completions.map(({ length }) => length)));
  const prompts = roomForPrompts(
    sequences.map(({ prompt }) => prompt),
    sizes,
  );
  const most = Math.max(longest(rows.map(({ ids }) => ids)), longest(rows.map(({ wanted }) => wanted)));
  const slots = paddedLength(most, Math.max(longestPrompt, samples) + samples * (maxNewTokens - 1), FEW_SLOTS);
  const tokens = listRows(rows, {
    slots,
    queries: Math.min(slots, samples * maxNewTokens),
    sharedPrefix: sizes.sharedPrefix,
    // A completion's last token predicts nothing and is left out.
    size: prompts + inQuarters(completionTokens) - completionCount,
    wantedSize,
    inOrder: samples === 1,
  });
  return {
    sequences,
    tokens,
    targets: listOf(targets, wantedSize),
    counted: new Float32Array(wantedSize).fill(1, 0, targets.length),
  };
}

/** Room in a list for a batch's prompts. */
function roomForPrompts(
  prompts: readonly (readonly number[])[],
  { sharedPrefix, longestPrompt, promptTokens }: Sizes,
): number {
  const needed = sharedPrefix + sum(prompts.map(({ length }) => length - sharedPrefix));
  return needed <= promptTokens ? promptTokens : sharedPrefix + prompts.length * (longestPrompt - sharedPrefix);
}

const listOf = (values: readonly number[], size: number): Int32Array => {
  const list = new Int32Array(size);
  list.set(values);
  return list;
};

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const longest = (rows: readonly { readonly length: number }[]): number =>
  rows.reduce((most, { length }) => Math.max(most, length), 0);

/** What was computed for each of the W tokens, completion by completion, where all of their tokens count. */
export function byCompletion({ sequences }: Batch, values: Float32Array): Float32Array[] {
  let end = 0;
  return sequences.flatMap(({ completions }) =>
    completions.map(({ length }) => {
      end += length;
      return values.subarray(end - length, end);
    }),
  );
}

/** The ids up to and including the first stop token; all of them where there is none. */
export function untilStop(ids: readonly number[], stopIds: readonly number[]): number[] {
  const stop = ids.findIndex((id) => stopIds.includes(id));
  return stop === -1 ? [...ids] : ids.slice(0, stop + 1);
}
