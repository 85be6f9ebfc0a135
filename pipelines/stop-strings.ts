/** Texts that end a completion. */
import type { Tokenizer } from "../model/tokenizer.js";
import { type StopTexts, stopTexts } from "../student/stop-texts.js";

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

/** The texts as sampling looks for them, by the bytes that a vocabulary of Gemma spells its tokens in. */
export function stopTextsOf(tokenizer: Tokenizer, stop: readonly string[], vocabSize: number): StopTexts {
  const special = new Set(tokenizer.specialTokens);
  const bytes: Uint8Array[] = [];
  for (const [token, id] of Object.entries(tokenizer.vocabulary())) {
    if (special.has(token)) continue;
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
    bytes[id] =
      byte === undefined ? Buffer.from(token.replaceAll("\u2581", " ")) : Uint8Array.of(Number.parseInt(byte, 16));
  }
  return stopTexts(stop, (id) => bytes[id] ?? NOTHING, vocabSize);
}

/** Special tokens, and rows of the embedding that have no token. */
const NOTHING = new Uint8Array();
