// Reads JSON from UTF-8 bytes value by value, with the verdicts of the reference's parser (serde_json), building nothing
// that is not asked for. JSON.parse would build everything, round integers above 2^53, accept lone surrogates, drop duplicate
// keys and reorder numeric ones.

import { BACKSLASH, code, escapeLength, isDigit, unescaped } from "./json-strings.js";

/** Objects and arrays may be nested this deep, the outermost included. */
const MAX_DEPTH = 127;
const MAX_U64 = 2n ** 64n - 1n;
/** Numbers of fewer characters and no exponent are finite. */
const SURELY_FINITE = 300;
/** Error messages show this many bytes of a value. */
const EXCERPT_BYTES = 60;

const [QUOTE, COLON, COMMA] = [code('"'), code(":"), code(",")] as const;
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [code("{"), code("}"), code("["), code("]")] as const;
const [MINUS, PLUS, POINT, ZERO] = [code("-"), code("+"), code("."), code("0")] as const;
const WORDS = ["null", "true", "false"].map((word) => Uint8Array.from(word, code));

/** Strings that a header repeats for each tensor, by their length: comparing is faster than decoding. */
const FREQUENT = new Map<number, { readonly text: string; readonly bytes: Uint8Array }[]>();
for (const text of ["dtype", "shape", "data_offsets", "BF16", "F32", "F16", "U8"]) {
  const sameLength = FREQUENT.get(text.length) ?? [];
  FREQUENT.set(text.length, [...sameLength, { text, bytes: Uint8Array.from(text, code) }]);
}

// What is decoded lies between quotes of bytes that are UTF-8 as a whole: a BOM in it is a character like any other.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** `fail` gets what is wrong and the byte at which the bytes stop being JSON. The bytes must be UTF-8. */
export class JsonReader {
  /** The byte that is read next. */
  at = 0;
  #depth = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly fail: (problem: string, at: number) => never,
  ) {}

  /** What the next value is, by its first character; `at` is its first byte then. */
  next(): "object" | "array" | "string" | "other" {
    this.#skipWhitespace();
    const byte = this.bytes[this.at];
    return byte === OPEN_OBJECT ? "object" : byte === OPEN_ARRAY ? "array" : byte === QUOTE ? "string" : "other";
  }

  /** Reads the object that is next; `member` reads or skips the value of each key, duplicates included, in order. */
  object(member: (key: string) => void): void {
    this.#enter();
    if (!this.#accept(CLOSE_OBJECT)) {
      do {
        this.#skipWhitespace();
        if (this.bytes[this.at] !== QUOTE) this.#fail("expected a key in double quotes");
        const key = this.string();
        if (!this.#accept(COLON)) this.#fail('expected ":"');
        member(key);
      } while (this.#accept(COMMA));
      if (!this.#accept(CLOSE_OBJECT)) this.#fail('expected "," or "}"');
    }
    this.#depth--;
  }

  /** Reads the array that is next; `element` reads or skips each. */
  array(element: () => void): void {
    this.#enter();
    if (!this.#accept(CLOSE_ARRAY)) {
      do element();
      while (this.#accept(COMMA));
      if (!this.#accept(CLOSE_ARRAY)) this.#fail('expected "," or "]"');
    }
    this.#depth--;
  }

  /** Reads the string that is next. */
  string(): string {
    const start = this.at + 1;
    const hasEscapes = this.#skipString();
    const text = this.bytes.subarray(start, this.at - 1);
    if (hasEscapes) return decoder.decode(unescaped(text));
    return FREQUENT.get(text.length)?.find(({ bytes }) => startsWith(text, bytes))?.text ?? decoder.decode(text);
  }

  /** Reads the value that is next if it is a whole number from 0 to 2^64 - 1, exactly; skips any other and returns undefined. */
  whole(): number | bigint | undefined {
    this.#skipWhitespace();
    const start = this.at;
    const isWhole = isDigit(this.bytes[start]) && this.#skipNumber();
    if (!isWhole) {
      if (this.at === start) this.skip();
      return undefined;
    }
    if (this.at - start > 20) return undefined;
    if (this.at - start > 15) {
      const value = BigInt(this.#text(start));
      return value > MAX_U64 ? undefined : value > Number.MAX_SAFE_INTEGER ? value : Number(value);
    }
    let value = 0;
    for (let i = start; i < this.at; i++) value = value * 10 + this.bytes[i]! - ZERO;
    return value;
  }

  /** Checks the value that is next and passes over it. */
  skip(): void {
    const kind = this.next();
    const first = this.bytes[this.at];
    if (kind === "object") this.object(() => this.skip());
    else if (kind === "array") this.array(() => this.skip());
    else if (kind === "string") this.#skipString();
    else if (first === MINUS || isDigit(first)) this.#skipNumber();
    else if (first === undefined) this.#fail("unexpected end of the header");
    else {
      const word = WORDS.find((letters) => startsWith(this.bytes, letters, this.at));
      this.at += word?.length ?? this.#fail("expected a value");
    }
  }

  /** Checks that nothing but white space is left. */
  end(): void {
    this.#skipWhitespace();
    if (this.at < this.bytes.length) this.#fail("unexpected text after the end of the JSON");
  }

  /** The bytes from `start` up to what is read next as text, for error messages. */
  excerpt(start: number): string {
    const text = this.bytes.subarray(start, Math.min(this.at, start + EXCERPT_BYTES));
    return decoder.decode(text) + (this.at > start + EXCERPT_BYTES ? "..." : "");
  }

  #fail(problem: string): never {
    return this.fail(problem, this.at);
  }

  #skipWhitespace(): void {
    for (;;) {
      const byte = this.bytes[this.at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.at++;
    }
  }

  #accept(byte: number): boolean {
    this.#skipWhitespace();
    if (this.bytes[this.at] !== byte) return false;
    this.at++;
    return true;
  }

  #enter(): void {
    if (this.#depth === MAX_DEPTH) this.#fail(`nested deeper than ${MAX_DEPTH}`);
    this.#depth++;
    this.at++;
  }

  #text(start: number): string {
    return decoder.decode(this.bytes.subarray(start, this.at));
  }

  /** Returns whether it is written as a whole number that is not negative: 2.0, 1e1 and -0 are not. */
  #skipNumber(): boolean {
    const start = this.at;
    let isWhole = true;
    let hasExponent = false;
    if (this.bytes[this.at] === MINUS) {
      isWhole = false;
      this.at++;
    }
    if (this.bytes[this.at] === ZERO) this.at++;
    else if (!this.#skipDigits()) this.#fail("expected a digit");
    if (this.bytes[this.at] === POINT) {
      isWhole = false;
      this.at++;
      if (!this.#skipDigits()) this.#fail("expected a digit");
    }
    if (((this.bytes[this.at] ?? 0) | 0x20) === code("e")) {
      isWhole = false;
      hasExponent = true;
      this.at++;
      if (this.bytes[this.at] === PLUS || this.bytes[this.at] === MINUS) this.at++;
      if (!this.#skipDigits()) this.#fail("expected a digit");
    }
    const isShort = this.at - start <= SURELY_FINITE && !hasExponent;
    if (!isShort && !Number.isFinite(Number(this.#text(start))))
      this.#fail(`number ${this.excerpt(start)} out of range`);
    return isWhole;
  }

  #skipDigits(): boolean {
    const start = this.at;
    while (isDigit(this.bytes[this.at])) this.at++;
    return this.at > start;
  }

  /** Returns whether it has escapes. */
  #skipString(): boolean {
    let hasEscapes = false;
    for (this.at++; ; ) {
      const byte = this.bytes[this.at];
      if (byte === undefined) this.#fail("unexpected end of the header");
      else if (byte === QUOTE) break;
      else if (byte === BACKSLASH) {
        hasEscapes = true;
        this.at += escapeLength(this.bytes, this.at, this.fail);
      } else if (byte < 0x20) this.#fail("control character in a string");
      else this.at++;
    }
    this.at++;
    return hasEscapes;
  }
}

function startsWith(bytes: Uint8Array, beginning: Uint8Array, at = 0): boolean {
  for (let i = 0; i < beginning.length; i++) if (bytes[at + i] !== beginning[i]) return false;
  return true;
}
