/**
 * Stages of sampling: a loop costs as much as the completions and the slots that it has room for, so that a batch goes
 * through several, of which each has its own program. Shape suffixes: M completions of a stage, M' of the next.
 */

export type Stage = {
  /** Completions that it goes on with. It ends when the next one has room for all that have not ended. */
  readonly completions: number;
  /** Tokens of a completion that it has room for. It ends when they are full. */
  readonly slots: number;
};

export function planStages(completions: number, maxNewTokens: number): Stage[] {
  return [{ completions, slots: Math.max(1, maxNewTokens - 1) }];
}
