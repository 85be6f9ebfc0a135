// Changes one value of a JSON text and leaves all else as it is written: numbers keep their digits, mappings their order.

/** The text of an object with `value` for a key of its top level, in place of what is there or as its last key. */
export function withKey(text: string, key: string, value: unknown): string {
  const json = JSON.stringify(value, null, 2).replaceAll("\n", "\n  ");
  const { found, end, isEmpty } = findKey(text, key);
  if (found) return text.slice(0, found[0]) + json + text.slice(found[1]);
  const rest = text.slice(end);
  return `${text.slice(0, end).trimEnd()}${isEmpty ? "" : ","}\n  ${JSON.stringify(key)}: ${json}\n${rest}`;
}

interface Found {
  /** Where the key's value begins and ends; null where there is no such key. */
  readonly found: readonly [number, number] | null;
  /** Where the object's closing brace is. */
  readonly end: number;
  readonly isEmpty: boolean;
}

/** Finds a key of the top level. Walks through strings and punctuation: the text is known to be a JSON object. */
export function findKey(text: string, key: string): Found {
  const piece = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;
  let depth = 0;
  let name: string | null = null;
  let last: string | null = null;
  let start = 0;
  for (let match = piece.exec(text); match !== null; match = piece.exec(text)) {
    const [token] = match;
    const isTop = depth === 1;
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (isTop && token === ":" && name === null) {
      name = JSON.parse(last!) as string;
      start = text.slice(piece.lastIndex).search(/\S/) + piece.lastIndex;
    } else if (isTop && token.startsWith('"') && name === null) last = token;
    const isEnd = depth === 0;
    if (isEnd || (isTop && token === ",")) {
      if (name === key)
        return { found: [start, text.slice(0, match.index).trimEnd().length], end: match.index, isEmpty: false };
      if (isEnd) return { found: null, end: match.index, isEmpty: last === null };
      name = null;
    }
  }
  throw new SyntaxError("expected the text of a JSON object");
}
