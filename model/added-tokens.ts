/** The tokens of tokenizer.json that a text's pieces are split at, read and left out without parsing its vocabulary (30 MB). */

export type AddedToken = { readonly content: string; readonly special: boolean };

const KEY = /"added_tokens"\s*:\s*(?=\[)/;

/** The added tokens of a tokenizer.json that the tokenizer's library has read. */
export function addedTokens(json: string): AddedToken[] {
  const [begin, end] = listIn(json);
  return begin === end ? [] : (JSON.parse(json.slice(begin, end)) as AddedToken[]);
}

/** The same tokenizer, with no token that is special: to it, what reads like one is text. */
export function withoutSpecialTokens(json: string): string {
  const [begin, end] = listIn(json);
  const kept = addedTokens(json).filter(({ special }) => !special);
  return begin === end ? json : json.slice(0, begin) + JSON.stringify(kept) + json.slice(end);
}

/** Where the list of added tokens stands in the text: flat objects, so it ends with the first "]" after which it parses. */
function listIn(json: string): [begin: number, end: number] {
  const key = KEY.exec(json);
  if (key === null) return [0, 0];
  const begin = key.index + key[0].length;
  for (let end = json.indexOf("]", begin) + 1; end > 0; end = json.indexOf("]", end) + 1) {
    const isWhole = /[[}]\s*\]$/.test(json.slice(Math.max(begin, end - 20), end));
    if (isWhole && parses(json.slice(begin, end))) return [begin, end];
  }
  return [0, 0];
}

function parses(json: string): boolean {
  try {
    JSON.parse(json);
    return true;
  } catch {
    return false;
  }
}
