/**
 * Telling a template's control tokens from those that the texts of messages spell out: while the template is rendered,
 * the texts have other characters where theirs begin.
 */
import type { Message } from "./chat-template.js";

/** Messages to render, and what gives the texts of the rendering back as they were; null where nothing was changed. */
export type Marked = { readonly messages: readonly Message[]; readonly restore: ((text: string) => string) | null };

/**
 * The messages with a private-use character in place of each that a control token begins with ("<"), if a control token
 * may be in their texts: one may come about as a template joins parts and trims them.
 */
export function standIns(messages: readonly Message[], tokens: readonly string[]): Marked {
  const texts = messages.flatMap(({ content }) =>
    typeof content === "string" ? [content] : content.map(({ text }) => text),
  );
  const joined = texts.join("");
  const dense = joined.replace(/\s/g, "");
  if (!tokens.some((token) => dense.includes(token.replace(/\s/g, "")))) return { messages, restore: null };

  const originals = [...new Set(tokens.map(firstCharacter))];
  const unused = unusedCharacters(joined, originals.length);
  const pairs = originals.map((original, i) => [original, unused[i]!] as const);
  const replaceAll = (text: string, from: 0 | 1, to: 0 | 1) =>
    pairs.reduce((result, pair) => result.replaceAll(pair[from], pair[to]), text);
  const mark = (text: string) => replaceAll(text, 0, 1);
  return {
    messages: messages.map((message) => ({
      ...message,
      content:
        typeof message.content === "string"
          ? mark(message.content)
          : message.content.map((part) => ({ ...part, text: mark(part.text) })),
    })),
    restore: (text) => replaceAll(text, 1, 0),
  };
}

/** The text cut at every control token that it spells out, the longest where several begin. */
export function splitAtTokens(text: string, tokens: readonly string[]): { text: string; isToken: boolean }[] {
  const longestFirst = [...tokens].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(${longestFirst.map(escaped).join("|")})`);
  return text
    .split(pattern)
    .map((piece, i) => ({ text: piece, isToken: i % 2 === 1 }))
    .filter(({ text }) => text !== "");
}

const firstCharacter = (token: string): string => String.fromCodePoint(token.codePointAt(0)!);

const escaped = (token: string): string => token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

/** Characters that the text does not hold, the first of those for private use: there are 6,400. */
function unusedCharacters(text: string, count: number): string[] {
  const found: string[] = [];
  for (let code = 0xe000; found.length < count; code++) {
    const character = String.fromCharCode(code);
    if (!text.includes(character)) found.push(character);
  }
  return found;
}
