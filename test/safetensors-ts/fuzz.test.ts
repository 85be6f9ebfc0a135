// Headers that are valid but for a few changes: each is read, or refused with a SafetensorsError, and soon.
// HEDDLE_FUZZ is how many are tried, HEDDLE_FUZZ_SEED where they start; a failure tells both and the bytes.
import { performance } from "node:perf_hooks";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";
import { BITS, type Dtype, deserialize, SafetensorsError, serialize } from "safetensors-ts";
import { expect, test } from "vitest";

const COUNT = Number(process.env.HEDDLE_FUZZ ?? 50_000);
const SEED = Number(process.env.HEDDLE_FUZZ_SEED ?? 1);
/** Headers are below a kilobyte: what takes this long hangs, or the machine does. */
const MAX_SECONDS = 5;

const generator = xoroshiro128plus(SEED);
/** A whole number from 0, below `limit`. */
const below = (limit: number) => (generator.next() >>> 0) % limit;
const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;

const entry = (dtype: string, shape: string, offsets: string) =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
/** Valid files: every dtype, and the ways of writing an entry that `serialize` does not use. */
const seeds: readonly Uint8Array[] = [
  serialize([]),
  serialize(
    (Object.keys(BITS) as Dtype[]).map((dtype) => ({
      name: dtype,
      dtype,
      shape: [8],
      data: new Uint8Array(BITS[dtype]),
    })),
    { format: "pt", "ü😀": '\u0001"\\' },
  ),
  fileOf(`{"a":${entry("F32", "[]", "[0,4]")},"b":${entry("BF16", "[0,18446744073709551615]", "[4,4]")}}`, 4),
  fileOf(`{"w":["F32",[2,1],[0,8]],"__metadata__":null,"\\u0061\\ud83d\\ude00":["U8",[],[8,9]]}  `, 9),
  fileOf(`{"w":{"x":{"y":[1.5e-3,-0,true,"\\n"]},${entry("F4", "[2]", "[0,1]").slice(1)}}`, 1),
  fileOf(` {"w":{"dtype":{"F64":null},"shape":[1],"data_offsets":[0,8]}}\n\t`, 8),
];

function fileOf(json: string, dataBytes: number): Uint8Array {
  const header = new TextEncoder().encode(json);
  const bytes = new Uint8Array(8 + header.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  return bytes;
}

const NUMBERS = ["0", "-0", "-1", "1", "2", "4294967296", "9007199254740991", "9007199254740993"].concat([
  "18446744073709551615",
  "18446744073709551616",
  "1e3",
  "1e999",
  "1.0",
  "00",
  "9".repeat(400),
  "0.5e-400",
  "-",
]);
const TOKENS = [
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\",
  "\\u",
  "\\ud800",
  "null",
  "true",
  "NaN",
  "\0",
  " ",
  "\ufeff",
].concat([
  '"dtype"',
  '"shape"',
  '"data_offsets"',
  '"__metadata__"',
  '"__proto__":',
  '"F32"',
  "[".repeat(130),
  "\u20ac",
]);
const encoder = new TextEncoder();

/** `bytes` with `length` of them from `at` on replaced. */
const splice = (bytes: Uint8Array, at: number, length: number, ...pieces: readonly Uint8Array[]) =>
  new Uint8Array(Buffer.concat([bytes.subarray(0, at), ...pieces, bytes.subarray(at + length)]));

function numberEdit(bytes: Uint8Array): Uint8Array {
  const numbers = [...Buffer.from(bytes).toString("latin1").matchAll(/\d+/g)];
  if (numbers.length === 0) return bytes;
  const { index, 0: digits } = pick(numbers);
  const near = String(Number(digits) + below(3) - 1);
  return splice(bytes, index, digits.length, encoder.encode(below(2) === 0 ? near : pick(NUMBERS)));
}

function duplicate(bytes: Uint8Array): Uint8Array {
  const [at, length] = [below(bytes.length + 1), 1 + below(60)];
  return splice(bytes, below(bytes.length + 1), 0, bytes.subarray(at, at + length));
}

/** Each changes the JSON of a header, or all of a file. */
const changes: readonly ((bytes: Uint8Array) => Uint8Array)[] = [
  (bytes) => splice(bytes, below(bytes.length), 1, Uint8Array.of(below(256))),
  (bytes) => bytes.slice().fill(0x20, below(bytes.length + 1), below(bytes.length + 1)),
  (bytes) => splice(bytes, below(bytes.length + 1), 0, Uint8Array.of(below(256))),
  (bytes) => splice(bytes, below(bytes.length + 1), 0, encoder.encode(pick(TOKENS))),
  (bytes) => splice(bytes, below(bytes.length + 1), 1 + below(20)),
  (bytes) => bytes.slice(0, below(bytes.length + 1)),
  numberEdit,
  duplicate,
];

/** Mostly the JSON changes, and its length is made right again, so that the change is what the reader meets. */
function mutant(): Uint8Array {
  const seed = pick(seeds);
  const isRaw = below(8) === 0;
  const length = new DataView(seed.buffer, seed.byteOffset).getUint32(0, true);
  let part = isRaw ? seed : seed.subarray(8, 8 + length);
  for (let left = 1 + below(4); left > 0; left--) part = pick(changes)(part);
  if (isRaw) return part;
  const bytes = splice(seed, 8, length, part);
  new DataView(bytes.buffer).setUint32(0, part.length, true);
  return bytes;
}

test(`${COUNT} changed headers are read or refused with a SafetensorsError`, { timeout: 3_600_000 }, () => {
  const verdicts = { read: 0, refused: 0 };
  for (let i = 0; i < COUNT; i++) {
    const bytes = mutant();
    const told = () => `change ${i} of seed ${SEED}: ${Buffer.from(bytes).toString("hex")}`;
    const begin = performance.now();
    try {
      const { tensors } = deserialize(bytes);
      verdicts.read++;
      const covered = tensors.reduce((sum, { data }) => sum + data.length, 0);
      const header = Number(new DataView(bytes.buffer).getBigUint64(0, true));
      expect(covered, told()).toBe(bytes.length - 8 - header);
    } catch (error) {
      if (!(error instanceof SafetensorsError)) throw new Error(told(), { cause: error });
      verdicts.refused++;
    }
    if (performance.now() - begin > 1000 * MAX_SECONDS) throw new Error(`took over ${MAX_SECONDS} s: ${told()}`);
  }
  if (process.env.HEDDLE_FUZZ) process.stdout.write(`${JSON.stringify({ seed: SEED, ...verdicts })}\n`);
  // Changes that nearly all fail at once would reach little of the reader.
  expect(verdicts.read / COUNT).toBeGreaterThan(0.05);
});
