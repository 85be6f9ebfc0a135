/**
 * Rows of different lengths as one rectangle. Shape suffixes: B rows, P prompt slots, N completion slots, T = P + N.
 * Prompts are padded on the left, completions on the right, so that every completion begins in the same slot. What is
 * padding is told by the attention alone; the ids there may be any.
 */

/** A batch of prompts. */
export type PromptBatch = {
  readonly rows: number;
  /** P */
  readonly slots: number;
  /** [B, P] */
  readonly ids: Int32Array;
  /** [B, P]: 1 where a token stands, 0 for padding. */
  readonly attention: Int32Array;
};

/** A batch of prompts with a completion each. */
export type Batch = {
  readonly rows: number;
  readonly promptSlots: number;
  readonly completionSlots: number;
  /** [B, T] */
  readonly ids: Int32Array;
  /** [B, T] */
  readonly attention: Int32Array;
  /** [B, N]: 1 on the tokens of the completion, its stop token included. */
  readonly counted: Float32Array;
};

/**
 * The padded length for rows of at most `longest` tokens: each program is compiled for one length, so lengths are
 * rounded up, by at most a third, to 8, 12, 16, 24, 32, 48, 64, ...
 */
export function paddedLength(longest: number): number {
  for (let size = 8; ; size *= 2) {
    if (longest <= size) return size;
    if (longest <= size * 1.5) return size * 1.5;
  }
}

/** Left-pads prompts to a common padded length. */
export function padPrompts(prompts: readonly (readonly number[])[], padId: number): PromptBatch {
  const slots = paddedLength(Math.max(...prompts.map((prompt) => prompt.length)));
  const ids = new Int32Array(prompts.length * slots).fill(padId);
  const attention = new Int32Array(prompts.length * slots);
  prompts.forEach((prompt, row) => {
    const begin = (row + 1) * slots - prompt.length;
    ids.set(prompt, begin);
    attention.fill(1, begin, begin + prompt.length);
  });
  return { rows: prompts.length, slots, ids, attention };
}

/** Prompts with their completions, each of at most `completionSlots` tokens. */
export function joinCompletions(
  prompts: PromptBatch,
  completions: readonly (readonly number[])[],
  completionSlots: number,
  padId: number,
): Batch {
  const { rows, slots } = prompts;
  const T = slots + completionSlots;
  const ids = new Int32Array(rows * T).fill(padId);
  const attention = new Int32Array(rows * T);
  const counted = new Float32Array(rows * completionSlots);
  completions.forEach((completion, row) => {
    ids.set(prompts.ids.subarray(row * slots, (row + 1) * slots), row * T);
    attention.set(prompts.attention.subarray(row * slots, (row + 1) * slots), row * T);
    ids.set(completion, row * T + slots);
    attention.fill(1, row * T + slots, row * T + slots + completion.length);
    counted.fill(1, row * completionSlots, row * completionSlots + completion.length);
  });
  return { rows, promptSlots: slots, completionSlots, ids, attention, counted };
}

/** The ids up to and including the first stop token; all of them where there is none. */
export function untilStop(ids: readonly number[], stopIds: readonly number[]): number[] {
  const stop = ids.findIndex((id) => stopIds.includes(id));
  return stop === -1 ? [...ids] : ids.slice(0, stop + 1);
}
