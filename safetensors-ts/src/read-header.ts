// Reads and validates a header: the checks of the reference reader, in its order.
import { BITS, type TensorSpec } from "./dtypes.js";
import { SafetensorsError } from "./error.js";
import { type RawTensor, readEntries } from "./read-entries.js";

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

/**
 * Parses the header's JSON (without the 8 bytes of its length) of a file of `fileBytes` bytes. `path` is for error messages.
 * Takes memory in proportion to the JSON: what is not part of a tensor's entry or the metadata is checked and passed over.
 */
export function parseHeader(json: Uint8Array, fileBytes: number, path?: string): Header {
  const { metadata, entries } = readEntries(json, (problem, tensor, at) => {
    if (at === undefined) throw new SafetensorsError(path, problem, tensor);
    const offset = LENGTH_BYTES + at;
    throw new SafetensorsError(path, `${problem} (byte ${offset})`, tensor, { offset });
  });
  const byOffset = [...entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
  const dataBytes = validate(byOffset, path);

  const dataStart = LENGTH_BYTES + json.length;
  const found = fileBytes - dataStart;
  if (found !== dataBytes) {
    const verdict = found < dataBytes ? "the file is truncated" : "there are bytes after the last tensor";
    const problem = `header describes ${dataBytes} bytes of tensors, found ${found}: ${verdict}`;
    throw new SafetensorsError(path, problem, undefined, { offset: dataStart + Math.min(found, dataBytes) });
  }
  return { metadata, tensors: byOffset.map(toInfo), dataStart };
}

/** Ranges must follow each other without holes or overlaps, each as long as its shape and dtype say. Returns their total. */
function validate(tensors: readonly RawTensor[], path: string | undefined): number {
  let previousEnd = 0;
  for (const { name, dtype, shape, begin, end } of tensors) {
    const fail = (problem: string): never => {
      throw new SafetensorsError(path, problem, name);
    };
    if (begin !== previousEnd || end < begin) {
      const expected = `expected them to begin at ${previousEnd}: no hole, no overlap`;
      fail(`tensor "${name}" has data_offsets [${begin},${end}], ${expected}`);
    }
    previousEnd = end;
    const elements = countElements(shape);
    const bits = typeof elements === "number" ? elements * BITS[dtype] : undefined;
    if (bits !== undefined && bits === (end - begin) * 8 && bits <= Number.MAX_SAFE_INTEGER) continue;

    const what = `tensor "${name}" of dtype ${dtype} and shape [${shape}]`;
    const exact = elements === undefined ? undefined : BigInt(elements) * BigInt(BITS[dtype]);
    if (exact === undefined || exact > MAX_U64) return fail(`${what} overflows 64 bits`);
    if (exact % 8n !== 0n) fail(`${what} takes ${exact} bits, expected a multiple of 8`);
    const needed = exact / 8n;
    if (BigInt(end - begin) !== needed) fail(`${what} needs ${needed} bytes, its data_offsets span ${end - begin}`);
  }
  return previousEnd;
}

/** The product, exactly; undefined where it passes 2^64 - 1 on the way, even if a 0 follows: the reference's rule. */
function countElements(shape: readonly (number | bigint)[]): number | bigint | undefined {
  let product = 1;
  for (const size of shape) {
    product *= Number(size);
    if (product > Number.MAX_SAFE_INTEGER) return countExactly(shape);
  }
  return product;
}

function countExactly(shape: readonly (number | bigint)[]): bigint | undefined {
  let exact = 1n;
  for (const size of shape) {
    exact *= BigInt(size);
    if (exact > MAX_U64) return undefined;
  }
  return exact;
}

function toInfo(tensor: RawTensor): TensorInfo {
  return isInfo(tensor) ? tensor : { ...tensor, shape: tensor.shape.map(Number) };
}

const isInfo = (tensor: RawTensor): tensor is RawTensor & TensorInfo =>
  tensor.shape.every((size) => typeof size === "number");
