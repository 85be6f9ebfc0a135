// The header of a GGUF file: metadata by key, and where each tensor is. Format: ggml's docs/gguf.md, versions 2 and 3.
// Why not @huggingface/gguf: it drops the byte order mark that six of Gemma 3's tokens begin with, and reads what is
// missing of a file cut short as zeros.
import { type FileHandle, open } from "node:fs/promises";
import { ModelError } from "../model/errors.js";

/** 64-bit integers are numbers too: no key of a model is above 2^53. */
export type MetadataValue = string | number | boolean | readonly MetadataValue[];
export type Metadata = ReadonlyMap<string, MetadataValue>;

export interface GgufTensor {
  readonly name: string;
  /** ggml's number of the type, see formats.ts. */
  readonly type: number;
  /** Rows first, as in safetensors; the file has it the other way round. */
  readonly shape: readonly number[];
  /** Of its first byte, from the start of the file. */
  readonly position: number;
}

export interface GgufHeader {
  readonly metadata: Metadata;
  readonly tensors: readonly GgufTensor[];
}

/** An open file. It holds a file descriptor until `close()`. */
export interface GgufFile extends GgufHeader {
  readonly path: string;
  readonly fileBytes: number;
  /** Fills `into` with the bytes from `position` on. */
  read(position: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Headers are read in prefixes of the file that grow to this: a vocabulary of 262144 tokens takes 7 MB. */
const PREFIX_BYTES = [2 ** 24, 2 ** 26, 2 ** 28];

/** Throws a ModelError for a file that is missing, no GGUF, of another version, or cut short within its header. */
export async function openGguf(path: string): Promise<GgufFile> {
  const handle = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    const problem = error.code === "ENOENT" ? "no such file" : `cannot be opened (${error.code})`;
    throw new ModelError(path, problem, { cause: error });
  });
  try {
    const { size: fileBytes } = await handle.stat();
    const read = (position: number, into: Uint8Array) => readAt(handle, path, position, into);
    const header = await readHeader(path, fileBytes, read);
    return { ...header, path, fileBytes, read, close: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readHeader(path: string, fileBytes: number, read: GgufFile["read"]): Promise<GgufHeader> {
  for (const bytes of PREFIX_BYTES) {
    const prefix = new Uint8Array(Math.min(bytes, fileBytes));
    await read(0, prefix);
    try {
      return parseGgufHeader(path, prefix);
    } catch (error) {
      if (!(error instanceof EndOfBytes)) throw error;
    }
    if (prefix.length === fileBytes) {
      throw new ModelError(path, `ends at byte ${fileBytes}, within its header: it is cut short, get it again`);
    }
  }
  throw new ModelError(path, `has a header that does not end within ${PREFIX_BYTES.at(-1)} bytes: it is damaged`);
}

async function readAt(handle: FileHandle, path: string, position: number, into: Uint8Array): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await handle.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw new ModelError(path, `ends at byte ${position + done}: truncated since it was opened`);
    done += bytesRead;
  }
}

/** The header goes on behind the bytes that were given. */
export class EndOfBytes extends Error {}

const MAGIC = "GGUF";
const VERSIONS = [2, 3];
const DEFAULT_ALIGNMENT = 32;

/** `bytes` are the file from its start; throws EndOfBytes where they end before the header. */
export function parseGgufHeader(path: string, bytes: Uint8Array): GgufHeader {
  const reader = readerOf(path, bytes);
  const magic = Buffer.from(bytes.subarray(0, MAGIC.length)).toString("latin1");
  if (!MAGIC.startsWith(magic) || bytes.length === 0) {
    throw new ModelError(path, `begins with ${JSON.stringify(magic)}, expected "${MAGIC}": it is no GGUF file`);
  }
  reader.skip(MAGIC.length);
  const version = reader.uint32();
  if (!VERSIONS.includes(version)) {
    throw new ModelError(path, `is of GGUF version ${version}, expected ${VERSIONS.join(" or ")} (little endian)`);
  }
  const [tensorCount, keyCount] = [reader.uint64(), reader.uint64()];
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = reader.string();
    metadata.set(key, reader.value(reader.uint32()));
  }
  const tensors: GgufTensor[] = [];
  for (let i = 0; i < tensorCount; i++) {
    const name = reader.string();
    const shape = Array.from({ length: reader.dimensions(name) }, () => reader.uint64()).reverse();
    tensors.push({ name, shape, type: reader.uint32(), position: reader.uint64() });
  }
  const alignment = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  if (!(typeof alignment === "number" && Number.isSafeInteger(alignment) && alignment > 0)) {
    throw new ModelError(path, `"general.alignment" is ${JSON.stringify(alignment)}, expected a positive integer`);
  }
  const dataStart = Math.ceil(reader.position() / alignment) * alignment;
  return { metadata, tensors: tensors.map((tensor) => ({ ...tensor, position: dataStart + tensor.position })) };
}

/** ggml tensors have at most this many dimensions. */
const MAX_DIMENSIONS = 4;

function readerOf(path: string, bytes: Uint8Array) {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const take = (count: number): number => {
    if (count > bytes.length - at) throw new EndOfBytes();
    at += count;
    return at - count;
  };
  const uint32 = () => buffer.readUInt32LE(take(4));
  const uint64 = () => Number(buffer.readBigUInt64LE(take(8)));
  const string = () => {
    const length = uint64();
    const begin = take(length);
    return buffer.toString("utf8", begin, begin + length);
  };
  const STRING = 8;
  const ARRAY = 9;
  /** Readers by the number of the value's type. */
  const scalars: Readonly<Record<number, () => MetadataValue>> = {
    0: () => buffer.readUInt8(take(1)),
    1: () => buffer.readInt8(take(1)),
    2: () => buffer.readUInt16LE(take(2)),
    3: () => buffer.readInt16LE(take(2)),
    4: uint32,
    5: () => buffer.readInt32LE(take(4)),
    6: () => buffer.readFloatLE(take(4)),
    7: () => buffer.readUInt8(take(1)) !== 0,
    [STRING]: string,
    10: uint64,
    11: () => Number(buffer.readBigInt64LE(take(8))),
    12: () => buffer.readDoubleLE(take(8)),
  };
  const value = (type: number): MetadataValue => {
    const scalar = type === ARRAY ? array : scalars[type];
    if (scalar !== undefined) return scalar();
    throw new ModelError(path, `has a value of unknown type ${type} at byte ${at}: it is damaged`);
  };
  const array = (): MetadataValue => {
    const type = uint32();
    const count = uint64();
    const values: MetadataValue[] = [];
    for (let i = 0; i < count; i++) values.push(value(type));
    return values;
  };
  const dimensions = (name: string) => {
    const count = uint32();
    if (count <= MAX_DIMENSIONS) return count;
    throw new ModelError(path, `tensor "${name}" has ${count} dimensions, expected at most ${MAX_DIMENSIONS}`);
  };
  return { skip: take, position: () => at, uint32, uint64, string, value, dimensions };
}
