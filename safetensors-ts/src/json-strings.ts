// Escapes in JSON strings, on bytes.

export const code = (character: string): number => character.charCodeAt(0);
export const BACKSLASH: number = code("\\");
const [ZERO, NINE, SMALL_A] = [code("0"), code("9"), code("a")] as const;

const SIMPLE_ESCAPES: ReadonlyMap<number, number> = new Map(
  Object.entries({ '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }).map(
    ([letter, meaning]) => [code(letter), code(meaning)],
  ),
);
const encoder = new TextEncoder();

export const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= ZERO && byte <= NINE;

/** Bytes that the escape at `at` takes, pairs of surrogates being one. `fail` gets what is wrong with it and where. */
export function escapeLength(bytes: Uint8Array, at: number, fail: (problem: string, at: number) => never): number {
  const letter = bytes[at + 1];
  if (letter !== undefined && SIMPLE_ESCAPES.has(letter)) return 2;
  if (letter !== code("u")) return fail("invalid escape", at);
  const unit = (digits: number) => {
    const value = hexadecimal(bytes, digits);
    return Number.isNaN(value) ? fail("expected four hexadecimal digits", digits) : value;
  };
  const high = unit(at + 2);
  if (high < 0xd800 || high > 0xdfff) return 6;
  if (high > 0xdbff || bytes[at + 6] !== BACKSLASH || bytes[at + 7] !== code("u")) {
    return fail("lone surrogate in an escape", at);
  }
  const low = unit(at + 8);
  return low >= 0xdc00 && low <= 0xdfff ? 12 : fail("lone surrogate in an escape", at);
}

/** The UTF-8 that a string with escapes, all of them valid, stands for: never longer than the string as it is written. */
export function unescaped(text: Uint8Array): Uint8Array {
  const result = new Uint8Array(text.length);
  let to = 0;
  for (let at = 0; at < text.length; ) {
    if (text[at] !== BACKSLASH) {
      result[to++] = text[at++]!;
      continue;
    }
    const simple = SIMPLE_ESCAPES.get(text[at + 1]!);
    if (simple !== undefined) {
      result[to++] = simple;
      at += 2;
      continue;
    }
    const unit = hexadecimal(text, at + 2);
    const isPair = unit >= 0xd800 && unit <= 0xdfff;
    const character = isPair ? String.fromCharCode(unit, hexadecimal(text, at + 8)) : String.fromCharCode(unit);
    to += encoder.encodeInto(character, result.subarray(to)).written;
    at += isPair ? 12 : 6;
  }
  return result.subarray(0, to);
}

/** The number that four digits at `at` write, NaN if they are none. */
function hexadecimal(bytes: Uint8Array, at: number): number {
  let value = 0;
  for (let i = at; i < at + 4; i++) {
    const byte = bytes[i] ?? 0;
    const letter = (byte | 0x20) - SMALL_A;
    const digit = isDigit(byte) ? byte - ZERO : letter >= 0 && letter < 6 ? letter + 10 : Number.NaN;
    value = value * 16 + digit;
  }
  return value;
}
