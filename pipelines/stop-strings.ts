/** Texts that end a completion. */
import type { Tokenizer } from "../model/tokenizer.js";

/**
 * A completion cut at the first of the texts `stop` that it comes to: the ids end with the token that completes it, the
 * text ends before it. Of several that one token completes, the one that begins first counts.
 */
export async function cutAtStop(
  tokenizer: Tokenizer,
  ids: readonly number[],
  stop: readonly string[],
): Promise<{ ids: number[]; text: string }> {
  const whole = await tokenizer.decode(ids);
  if (beginOf(whole, stop) < 0) return { ids: [...ids], text: whole };
  // The fewest ids whose text holds one: more ids hold it, too.
  let [without, holding] = [0, ids.length];
  while (holding - without > 1) {
    const middle = (without + holding) >> 1;
    if (beginOf(await tokenizer.decode(ids.slice(0, middle)), stop) < 0) without = middle;
    else holding = middle;
  }
  const kept = ids.slice(0, holding);
  const text = await tokenizer.decode(kept);
  return { ids: kept, text: text.slice(0, beginOf(text, stop)) };
}

/** Where the first of the texts begins, or -1. */
export function beginOf(text: string, stop: readonly string[]): number {
  const begins = stop.map((one) => text.indexOf(one)).filter((begin) => begin >= 0);
  return begins.length === 0 ? -1 : Math.min(...begins);
}
