// The JSON of a header: its metadata and an entry for each tensor, as they are written there and not yet held against each other.
import { BITS, type Dtype, isDtype } from "./dtypes.js";
import { JsonReader } from "./json-reader.js";

/** A tensor's entry. A dimension that a number does not hold exactly is a bigint. */
export interface RawTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly (number | bigint)[];
  readonly begin: number;
  readonly end: number;
}

/** Gets what is wrong, the tensor at fault and the byte of the JSON at fault, where there are such. */
type Fail = (problem: string, tensor?: string, at?: number) => never;

/** Tensors have at most this many dimensions. The reference has no limit; NumPy and PyTorch take 64. */
const MAX_DIMENSIONS = 1024;

/** `__metadata__` has at most this many keys, repeated ones counted: an object of millions takes minutes to make. */
const MAX_METADATA_KEYS = 100_000;

/** By name; of two entries of a name the last counts, as in the reference. */
export function readEntries(
  json: Uint8Array,
  fail: Fail,
): { metadata: Readonly<Record<string, string>>; entries: ReadonlyMap<string, RawTensor> } {
  checkUtf8(json, fail);
  const reader = new JsonReader(json, (problem, at) => fail(`header is not valid JSON: ${problem}`, undefined, at));
  let metadata: Record<string, string> | undefined;
  const entries = new Map<string, RawTensor>();
  if (reader.next() !== "object")
    failAtValue(reader, (found, at) => fail(`header should be a JSON object, got ${found}`, undefined, at));
  reader.object((key) => {
    if (key !== "__metadata__") entries.set(key, readTensor(reader, key, fail));
    else if (metadata) fail('header has "__metadata__" twice', undefined, reader.at);
    else metadata = readMetadata(reader, fail);
  });
  reader.end();
  return { metadata: metadata ?? {}, entries };
}

/** Bytes that are decoded at a time: the text is thrown away. */
const UTF8_CHUNK = 2 ** 16;

function checkUtf8(json: Uint8Array, fail: Fail): void {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    for (let at = 0; at < json.length; at += UTF8_CHUNK) {
      decoder.decode(json.subarray(at, at + UTF8_CHUNK), { stream: true });
    }
    decoder.decode();
  } catch {
    fail("header is not UTF-8");
  }
}

/** Passes over the value that is next, for a message that shows it. */
function failAtValue(reader: JsonReader, fail: (found: string, at: number) => never): never {
  reader.next();
  const at = reader.at;
  reader.skip();
  return fail(reader.excerpt(at), at);
}

/** An object of strings; null is none. Of two values of a key the last counts. */
function readMetadata(reader: JsonReader, fail: Fail): Record<string, string> {
  const metadata: Record<string, string> = {};
  if (reader.next() === "object") {
    let count = 0;
    reader.object((key) => {
      if (++count > MAX_METADATA_KEYS) {
        fail(`"__metadata__" should have at most ${MAX_METADATA_KEYS} keys, got more`, undefined, reader.at);
      }
      if (reader.next() !== "string") {
        const name = JSON.stringify(key);
        failAtValue(reader, (found, at) =>
          fail(`"__metadata__" has ${found} under ${name}, expected a string`, undefined, at),
        );
      }
      const value = reader.string();
      if (key !== "__proto__") metadata[key] = value;
      // Assigning it would set the prototype.
      else Object.defineProperty(metadata, key, { value, enumerable: true, configurable: true, writable: true });
    });
    return metadata;
  }
  const at = reader.at;
  reader.skip();
  const found = reader.excerpt(at);
  if (found !== "null") fail(`"__metadata__" should be an object of strings, got ${found}`, undefined, at);
  return {};
}

const FIELDS = ["dtype", "shape", "data_offsets"] as const;
type Field = (typeof FIELDS)[number];

/** An entry is {"dtype", "shape", "data_offsets"}; like the reference, also the array of the three, and dtype as {"F32": null}. */
function readTensor(reader: JsonReader, name: string, fail: Fail): RawTensor {
  const failHere = (problem: string, at?: number): never => fail(`tensor "${name}": ${problem}`, name, at);
  const found: { dtype?: Dtype; shape?: (number | bigint)[]; data_offsets?: readonly [begin: number, end: number] } =
    {};
  const readField = (field: Field) => {
    if (field === "dtype") found.dtype = readDtype(reader, failHere);
    else if (field === "shape") found.shape = readSizes(reader, field, failHere);
    else found.data_offsets = readOffsets(reader, failHere);
  };

  const kind = reader.next();
  const start = reader.at;
  if (kind === "object") {
    reader.object((key) => {
      const field = FIELDS.find((known) => known === key);
      if (field === undefined) return reader.skip();
      if (found[field] !== undefined) failHere(`"${field}" is there twice`, reader.at);
      readField(field);
    });
    const missing = FIELDS.find((field) => found[field] === undefined);
    if (missing !== undefined) failHere(`"${missing}" is missing`, start);
  } else if (kind === "array") {
    let count = 0;
    reader.array(() => {
      const field = FIELDS[count++];
      if (field === undefined) reader.skip();
      else readField(field);
    });
    if (count !== FIELDS.length)
      failHere(`expected dtype, shape and data_offsets, got ${reader.excerpt(start)}`, start);
  } else failAtValue(reader, (found, at) => failHere(`expected an object, got ${found}`, at));
  const [begin, end] = found.data_offsets!;
  return { name, dtype: found.dtype!, shape: found.shape!, begin, end };
}

type FailHere = (problem: string, at?: number) => never;

function readDtype(reader: JsonReader, fail: FailHere): Dtype {
  const kind = reader.next();
  const start = reader.at;
  let text: string | undefined;
  if (kind === "string") text = reader.string();
  else if (kind === "object") {
    let isUnit = true;
    reader.object((key) => {
      isUnit &&= text === undefined;
      text = key;
      reader.next();
      const at = reader.at;
      reader.skip();
      isUnit &&= reader.excerpt(at) === "null";
    });
    if (!isUnit) text = undefined;
  } else reader.skip();
  if (text !== undefined && isDtype(text)) return text;
  return fail(`unknown dtype ${reader.excerpt(start)}, expected one of ${Object.keys(BITS).join(", ")}`, start);
}

function readSizes(reader: JsonReader, field: "shape" | "data_offsets", fail: FailHere): (number | bigint)[] {
  if (reader.next() !== "array") {
    failAtValue(reader, (found, at) => fail(`${field} should be a list of whole numbers, got ${found}`, at));
  }
  const sizes: (number | bigint)[] = [];
  reader.array(() => {
    reader.next();
    const at = reader.at;
    const size = reader.whole();
    if (size === undefined) {
      return fail(`${field} should hold whole numbers from 0 to 2^64 - 1, got ${reader.excerpt(at)}`, at);
    }
    if (sizes.length === MAX_DIMENSIONS) fail(`${field} should hold at most ${MAX_DIMENSIONS} numbers, got more`, at);
    sizes.push(size);
  });
  return sizes.slice(); // an array that grew by pushing has room for 17: a copy has not
}

function readOffsets(reader: JsonReader, fail: FailHere): readonly [begin: number, end: number] {
  reader.next();
  const start = reader.at;
  const [begin, end, ...rest] = readSizes(reader, "data_offsets", fail);
  if (begin === undefined || end === undefined || rest.length > 0) {
    return fail(`data_offsets should be [begin, end], got ${reader.excerpt(start)}`, start);
  }
  if (typeof begin === "bigint" || typeof end === "bigint") {
    return fail(`data_offsets ${reader.excerpt(start)} lie beyond the end of any file, expected less than 2^53`, start);
  }
  return [begin, end];
}
