/** Texts that end a completion, found by the bytes of its tokens: several may spell one letter. */
import type { Tokenizer } from "../model/tokenizer.js";
import { type StopTexts, stopTexts } from "../student/stop-texts.js";

export type Stop = {
  /** The texts as sampling looks for them. */
  readonly texts: StopTexts;
  /**
   * A completion cut at the first of the texts that it comes to: the ids end with the token that completes it, the text
   * ends before it. Of several that one token completes, the one that begins first counts.
   */
  cut(ids: readonly number[]): Promise<{ ids: number[]; text: string }>;
};

/** What looks for one or more texts in the completions of a model whose vocabulary has `vocabSize` ids. */
export function stopAt(tokenizer: Tokenizer, stop: readonly string[], vocabSize: number): Stop {
  const bytesOf = tokenBytes(tokenizer);
  const needles = stop.map((text) => Buffer.from(text));
  return {
    texts: stopTexts(stop, bytesOf, vocabSize),
    cut: async (ids) => {
      const bytes = Buffer.concat(ids.map(bytesOf));
      const found = needles.filter((needle) => bytes.includes(needle));
      if (found.length === 0) return { ids: [...ids], text: await tokenizer.decode(ids) };
      const end = Math.min(...found.map((needle) => bytes.indexOf(needle) + needle.length));
      const last = tokenAt(ids, bytesOf, end - 1);
      const begins = found.map((needle) => bytes.subarray(0, last.end).indexOf(needle));
      const begin = Math.min(...begins.filter((at) => at >= 0));
      // Decoded without the bytes that are cut off: a run of byte tokens that is no text as a whole is none at all.
      const cut = tokenAt(ids, bytesOf, begin);
      const text = (await tokenizer.decode(ids.slice(0, cut.before))) + bytes.toString("utf8", cut.begin, begin);
      return { ids: ids.slice(0, last.before + 1), text };
    },
  };
}

/** The token that holds a byte: how many stand before it, and where its bytes begin and end. */
function tokenAt(ids: readonly number[], bytesOf: (id: number) => Uint8Array, byte: number) {
  for (let before = 0, begin = 0; ; before++) {
    const end = begin + bytesOf(ids[before]!).length;
    if (end > byte) return { before, begin, end };
    begin = end;
  }
}

/** The bytes that a vocabulary of Gemma spells its tokens in; none of what decodes to nothing. */
function tokenBytes(tokenizer: Tokenizer): (id: number) => Uint8Array {
  const special = new Set(tokenizer.specialTokens);
  const bytes: Uint8Array[] = [];
  for (const [token, id] of Object.entries(tokenizer.vocabulary())) {
    if (special.has(token)) continue;
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
    bytes[id] =
      byte === undefined ? Buffer.from(token.replaceAll("\u2581", " ")) : Uint8Array.of(Number.parseInt(byte, 16));
  }
  return (id) => bytes[id] ?? NOTHING;
}

/** Special tokens, and rows of the embedding that have no token. */
const NOTHING = new Uint8Array();
