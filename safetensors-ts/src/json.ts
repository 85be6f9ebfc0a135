// A strict JSON parser for safetensors headers, with the verdicts of the reference's (serde_json).
// JSON.parse would round integers above 2^53, accept lone surrogates, drop duplicate keys and reorder numeric ones.

/** Whole numbers from 0 to 2^64 - 1 are bigint; every other number (-1, -0, 2.0, 1e1, 2^64) is a number. */
export type JsonValue = null | boolean | number | bigint | string | JsonValue[] | JsonObject;

/** Entries in the order of the text, duplicate keys kept. */
export interface JsonObject {
  readonly entries: readonly (readonly [key: string, value: JsonValue])[];
}

/** Objects and arrays may be nested this deep, the outermost included. */
const MAX_DEPTH = 127;
const MAX_U64 = 2n ** 64n - 1n;

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const WHITESPACE = /[ \t\n\r]*/y;
const HEX4 = /[0-9a-fA-F]{4}/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** Throws SyntaxError with the character (from 0) where the text stops being JSON. */
export function parseJson(text: string): JsonValue {
  let at = 0;
  const value = parseValue(0);
  skipWhitespace();
  if (at < text.length) fail("unexpected text after the end of the JSON");
  return value;

  function fail(problem: string): never {
    throw new SyntaxError(`${problem} at character ${at}`);
  }

  function match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  }

  function skipWhitespace(): void {
    const code = text.charCodeAt(at);
    if (code === 0x20 || (code >= 0x09 && code <= 0x0d)) match(WHITESPACE);
  }

  function accept(character: string): boolean {
    skipWhitespace();
    if (text[at] !== character) return false;
    at++;
    return true;
  }

  function parseValue(depth: number): JsonValue {
    skipWhitespace();
    const first = text[at];
    if ((first === "{" || first === "[") && depth === MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH}`);
    if (first === undefined) fail("unexpected end of the header");
    if (first === '"') return parseString();
    if (first === "{") return parseObject(depth + 1);
    if (first === "[") return parseArray(depth + 1);
    if (first === "-" || (first >= "0" && first <= "9")) return parseNumber();
    for (const [word, meaning] of [["null", null] as const, ["true", true] as const, ["false", false] as const]) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    }
    return fail("expected a value");
  }

  function parseObject(depth: number): JsonObject {
    const entries: [string, JsonValue][] = [];
    at++;
    if (accept("}")) return { entries };
    do {
      skipWhitespace();
      if (text[at] !== '"') fail("expected a key in double quotes");
      const key = parseString();
      if (!accept(":")) fail('expected ":"');
      entries.push([key, parseValue(depth)]);
    } while (accept(","));
    if (!accept("}")) fail('expected "," or "}"');
    return { entries };
  }

  function parseArray(depth: number): JsonValue[] {
    const values: JsonValue[] = [];
    at++;
    if (accept("]")) return values;
    do values.push(parseValue(depth));
    while (accept(","));
    if (!accept("]")) fail('expected "," or "]"');
    return values;
  }

  function parseNumber(): number | bigint {
    const found = match(NUMBER) ?? fail("expected a digit");
    const isWhole = found[1] === undefined && found[2] === undefined && found[0][0] !== "-";
    if (isWhole) {
      const whole = BigInt(found[0]);
      if (whole <= MAX_U64) return whole;
    }
    const value = Number(found[0]);
    if (!Number.isFinite(value)) fail(`number ${found[0]} out of range`);
    return value;
  }

  function parseString(): string {
    let result = "";
    let start = ++at;
    for (;;) {
      const code = text.charCodeAt(at);
      if (code === 0x22) {
        result += text.slice(start, at++);
        return result;
      }
      if (code === 0x5c) {
        result += text.slice(start, at) + parseEscape();
        start = at;
      } else if (code >= 0x20) at++;
      else fail(at < text.length ? "control character in a string" : "unexpected end of the header");
    }
  }

  function parseEscape(): string {
    const letter = text[at + 1] ?? "";
    const simple = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined;
    if (simple === undefined && letter !== "u") fail("invalid escape");
    at += 2;
    if (simple !== undefined) return simple;
    const high = parseHex();
    if (high < 0xd800 || high > 0xdfff) return String.fromCharCode(high);
    if (high > 0xdbff || !text.startsWith("\\u", at)) fail("lone surrogate in an escape");
    at += 2;
    const low = parseHex();
    if (low < 0xdc00 || low > 0xdfff) fail("lone surrogate in an escape");
    return String.fromCharCode(high, low);
  }

  function parseHex(): number {
    const found = match(HEX4) ?? fail("expected four hexadecimal digits");
    return Number.parseInt(found[0], 16);
  }
}
