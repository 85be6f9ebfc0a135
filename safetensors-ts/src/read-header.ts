// Reads and validates a header: the checks of the reference reader, in its order.
import { BITS, type Dtype, isDtype, type TensorSpec } from "./dtypes.js";
import { SafetensorsError } from "./error.js";
import { type JsonObject, type JsonValue, parseJson } from "./json.js";

/** The header may take this many bytes, as in the reference: more is a damaged file, or an attack on the reader's memory. */
export const MAX_HEADER_BYTES = 100_000_000;
/** The header's own length comes first, as an unsigned little-endian integer of this many bytes. */
export const LENGTH_BYTES = 8;
const MAX_U64 = 2n ** 64n - 1n;

/**
 * A tensor and the bytes [begin, end) it takes, counted from the end of the header.
 * A dimension above 2^53 (legal only in a tensor without elements) is rounded to the nearest number.
 */
export interface TensorInfo extends TensorSpec {
  readonly begin: number;
  readonly end: number;
}

/** `tensors` is in the order of the file; `dataStart` is where in the file their bytes begin. */
export interface Header {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly TensorInfo[];
  readonly dataStart: number;
}

/** Length of the header in bytes, from the first 8 bytes of a file of `fileBytes` bytes. `path` is for error messages. */
export function headerLength(start: Uint8Array, fileBytes: number, path?: string): number {
  if (fileBytes < LENGTH_BYTES || start.length < LENGTH_BYTES) {
    throw new SafetensorsError(path, `is ${fileBytes} bytes long, expected at least ${LENGTH_BYTES}`);
  }
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    throw new SafetensorsError(
      path,
      `header of ${length} bytes, expected at most ${MAX_HEADER_BYTES}: damaged, or not safetensors`,
    );
  }
  if (LENGTH_BYTES + Number(length) > fileBytes) {
    throw new SafetensorsError(
      path,
      `header of ${length} bytes in a file of ${fileBytes} bytes: the file is truncated`,
    );
  }
  return Number(length);
}

/** Parses the header's JSON (without the 8 bytes of its length) of a file of `fileBytes` bytes. `path` is for error messages. */
export function parseHeader(json: Uint8Array, fileBytes: number, path?: string): Header {
  const fail = (problem: string, tensor?: string): never => {
    throw new SafetensorsError(path, problem, tensor);
  };
  const root = parseRoot(json, fail);
  let metadata: Record<string, string> | undefined;
  const raw = new Map<string, RawInfo>();
  for (const [key, value] of root.entries) {
    if (key !== "__metadata__") raw.set(key, parseTensor(key, value, fail));
    else if (metadata) fail('header has "__metadata__" twice');
    else metadata = parseMetadata(value, fail);
  }
  const byOffset = [...raw.values()].sort((a, b) => compare(a.begin, b.begin) || compare(a.end, b.end));
  const dataBytes = validate(byOffset, fail);

  const dataStart = LENGTH_BYTES + json.length;
  if (BigInt(dataStart) + dataBytes !== BigInt(fileBytes)) {
    const found = fileBytes - dataStart;
    const verdict = BigInt(found) < dataBytes ? "the file is truncated" : "there are bytes after the last tensor";
    fail(`header describes ${dataBytes} bytes of tensors, found ${found}: ${verdict}`);
  }
  const tensors = byOffset.map(({ name, dtype, shape, begin, end }) => ({
    name,
    dtype,
    shape: shape.map(Number),
    begin: Number(begin),
    end: Number(end),
  }));
  return { metadata: metadata ?? {}, tensors, dataStart };
}

interface RawInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly bigint[];
  readonly begin: bigint;
  readonly end: bigint;
}

type Fail = (problem: string, tensor?: string) => never;

const compare = (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0);

/** Ranges must follow each other without holes or overlaps, each as long as its shape and dtype say. Returns their total. */
function validate(tensors: readonly RawInfo[], fail: Fail): bigint {
  let previousEnd = 0n;
  for (const { name, dtype, shape, begin, end } of tensors) {
    const what = `tensor "${name}" of dtype ${dtype} and shape [${shape}]`;
    if (begin !== previousEnd || end < begin) {
      fail(
        `tensor "${name}" has data_offsets [${begin},${end}], expected them to begin at ${previousEnd}: no hole, no overlap`,
        name,
      );
    }
    previousEnd = end;
    const elements = shape.reduce((product, size) => (product > MAX_U64 ? product : product * size), 1n);
    const bits = elements * BigInt(BITS[dtype]);
    if (elements > MAX_U64 || bits > MAX_U64) fail(`${what} overflows 64 bits`, name);
    if (bits % 8n !== 0n) fail(`${what} takes ${bits} bits, expected a multiple of 8`, name);
    if (end - begin !== bits / 8n) fail(`${what} needs ${bits / 8n} bytes, its data_offsets span ${end - begin}`, name);
  }
  return previousEnd;
}

function parseRoot(json: Uint8Array, fail: Fail): JsonObject {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    return fail("header is not UTF-8");
  }
  try {
    const root = parseJson(text);
    return isObject(root) ? root : fail(`header should be a JSON object, got ${show(root)}`);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return fail(`header is not valid JSON: ${error.message}`);
  }
}

function parseMetadata(value: JsonValue, fail: Fail): Record<string, string> {
  if (value === null) return {};
  if (!isObject(value)) return fail(`"__metadata__" should be an object of strings, got ${show(value)}`);
  return Object.fromEntries(
    value.entries.map(([key, text]) => [
      key,
      typeof text === "string" ? text : fail(`"__metadata__" has ${show(text)} under "${key}", expected a string`),
    ]),
  );
}

const FIELDS = ["dtype", "shape", "data_offsets"] as const;

/** An entry is {"dtype", "shape", "data_offsets"}; like the reference, also the array of the three, and dtype as {"F32": null}. */
function parseTensor(name: string, value: JsonValue, fail: Fail): RawInfo {
  const failHere = (problem: string): never => fail(`tensor "${name}": ${problem}`, name);
  const [dtype, shape, offsets] = Array.isArray(value) ? value : parseFields(value, failHere);
  if (
    dtype === undefined ||
    shape === undefined ||
    offsets === undefined ||
    (Array.isArray(value) && value.length > 3)
  ) {
    return failHere(`expected dtype, shape and data_offsets, got ${show(value)}`);
  }
  const sizes = parseSizes("shape", shape, failHere);
  const [begin, end, ...rest] = parseSizes("data_offsets", offsets, failHere);
  if (begin === undefined || end === undefined || rest.length > 0) {
    return failHere(`data_offsets should be [begin, end], got ${show(offsets)}`);
  }
  return { name, dtype: parseDtype(dtype, failHere), shape: sizes, begin, end };
}

function parseFields(value: JsonValue, fail: Fail): JsonValue[] {
  if (!isObject(value)) return fail(`expected an object, got ${show(value)}`);
  return FIELDS.map((field) => {
    const found = value.entries.filter(([key]) => key === field);
    if (found.length !== 1) fail(found.length === 0 ? `"${field}" is missing` : `"${field}" is there twice`);
    return found[0]![1];
  });
}

function parseDtype(value: JsonValue, fail: Fail): Dtype {
  const [only, ...others] = isObject(value) ? value.entries : [];
  const text = only !== undefined && only[1] === null && others.length === 0 ? only[0] : value;
  if (typeof text === "string" && isDtype(text)) return text;
  return fail(`unknown dtype ${show(value)}, expected one of ${Object.keys(BITS).join(", ")}`);
}

function parseSizes(field: string, value: JsonValue, fail: Fail): bigint[] {
  if (!Array.isArray(value)) return fail(`${field} should be a list of whole numbers, got ${show(value)}`);
  return value.map((size) =>
    typeof size === "bigint" ? size : fail(`${field} should hold whole numbers from 0 to 2^64 - 1, got ${show(size)}`),
  );
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: JsonValue): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(show)}]`;
  return isObject(value)
    ? `{${value.entries.map(([key, inner]) => `${JSON.stringify(key)}:${show(inner)}`)}}`
    : String(value);
}
