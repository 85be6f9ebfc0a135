/** The stages of sampling: a loop costs as much as what it has room for, so that a batch goes through several. */

export type Stage = {
  /** Completions that it goes on with. It ends when a later stage has room for all that have not ended. */
  readonly completions: number;
  /** Tokens of each that it has room for. It ends when they are full. */
  readonly slots: number;
};

/** Fewer completions than this cost as much as a quarter of them: each step reads all weights. */
const MANY = 16;

/** Tokens of a batch from which on a loop more, which is compiled once, saves more than that. */
const MUCH = 2048;

/** Completions from this length on spend a good part of a step on looking back. */
const LONG = 128;

/**
 * Stages for a batch: where it pays, a quarter of the slots at first, and a quarter of the completions in the end. Few,
 * since each is a loop of its own in the program. The last token of a completion needs no slot: nothing follows it.
 */
export function planStages(completions: number, maxNewTokens: number): Stage[] {
  const all = { completions, slots: Math.max(1, maxNewTokens - 1) };
  if (completions < MANY || completions * maxNewTokens < MUCH) return [all];
  const last = { ...all, completions: Math.ceil(completions / 4) };
  return maxNewTokens < LONG ? [all, last] : [{ ...all, slots: Math.ceil(maxNewTokens / 4) }, all, last];
}
