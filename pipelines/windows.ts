/** Sequences of any length, scored in windows that overlap. */
import type { ModelConfig } from "../model/config.js";
import { UserError } from "./errors.js";

/** The tokens begin..end-1 of a sequence, of which those from `from` on are scored; the others are what they follow. */
export type Window = { readonly begin: number; readonly end: number; readonly from: number };

/** Tokens of a window, and how much further each begins. */
export type Windows = { readonly window: number; readonly stride: number };

/**
 * The windows of a sequence: each token but the first is scored once, with all tokens before it in its own window, which
 * are at least window - stride where the sequence has them. As in transformers' guide "Perplexity of fixed-length models".
 */
export function windowsOf(length: number, { window, stride }: Windows): Window[] {
  const windows: Window[] = [];
  for (let begin = 0, from = 1; ; begin += stride) {
    const end = Math.min(begin + window, length);
    windows.push({ begin, end, from });
    if (end === length) return windows;
    from = end;
  }
}

/**
 * As the flags say, or null where they ask for none: the window is the model's context unless told otherwise, the stride
 * half of the window.
 * @throws UserError where they do not fit the model or each other
 */
export function windowsFor(
  { maxPositionEmbeddings: most }: ModelConfig,
  flags: { readonly window?: number; readonly stride?: number },
): Windows | null {
  if (flags.window === undefined && flags.stride === undefined) return null;
  const window = flags.window ?? most;
  if (window > most) {
    throw new UserError(`--window: expected at most ${most}, max_position_embeddings of the model, got ${window}`);
  }
  const stride = flags.stride ?? Math.floor(window / 2);
  if (stride < window) return { window, stride };
  throw new UserError(
    `--stride: expected less than the window of ${window} tokens, so that each token follows another, got ${stride}`,
  );
}
