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
function beginOf(text: string, stop: readonly string[]): number {
  const begins = stop.map((one) => text.indexOf(one)).filter((begin) => begin >= 0);
  return begins.length === 0 ? -1 : Math.min(...begins);
}

/** More stop tokens than this are not worth looking for at each step. */
const MOST_STOP_TOKENS = 128;

/**
 * The tokens whose own text holds one of the texts, so that sampling can end with them: a completion that comes to one of
 * the texts in other ways is cut afterwards. None where they are too many.
 */
export async function stopTokens(tokenizer: Tokenizer, stop: readonly string[]): Promise<number[]> {
  if (stop.length === 0) return [];
  const isSpelled = (token: string) => beginOf(token.replaceAll("\u2581", " "), stop) >= 0;
  const candidates = Object.entries(tokenizer.vocabulary()).flatMap(([token, id]) => (isSpelled(token) ? [id] : []));
  if (candidates.length > MOST_STOP_TOKENS) return [];
  const texts = await Promise.all(candidates.map((id) => tokenizer.decode([id])));
  return candidates.filter((_, i) => beginOf(texts[i]!, stop) >= 0).sort((a, b) => a - b);
}
