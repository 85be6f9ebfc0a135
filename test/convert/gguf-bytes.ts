/** GGUF files made for one test, from the format's description (ggml's docs/gguf.md). */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { MetadataValue } from "../../convert/gguf-header.js";
import { newFolder } from "../model/folder.js";

export interface TestTensor {
  readonly name: string;
  /** Rows first. */
  readonly shape: readonly number[];
  /** @default 0, F32 */
  readonly type?: number;
  readonly data: Uint8Array;
}

export interface TestGguf {
  readonly metadata: Readonly<Record<string, MetadataValue>>;
  readonly tensors?: readonly TestTensor[];
  readonly version?: number;
}

/** Integers are int32, other numbers float32, lists of what their first value is. Data is aligned to 32 bytes. */
export function ggufBytes({ metadata, tensors = [], version = 3 }: TestGguf): Buffer {
  const padded = (bytes: number) => Math.ceil(bytes / 32) * 32;
  let position = 0;
  const infos = tensors.map(({ name, shape, type = 0, data }) => {
    const info = [text(name), uint32(shape.length), ...shape.toReversed().map(uint64), uint32(type), uint64(position)];
    position += padded(data.length);
    return Buffer.concat(info);
  });
  const pairs = Object.entries(metadata).flatMap(([key, value]) => [text(key), uint32(typeOf(value)), bytesOf(value)]);
  const counts = [uint32(version), uint64(tensors.length), uint64(Object.keys(metadata).length)];
  const header = Buffer.concat([Buffer.from("GGUF"), ...counts, ...pairs, ...infos]);
  const pad = (data: Uint8Array) => Buffer.concat([data, Buffer.alloc(padded(data.length) - data.length)]);
  return Buffer.concat([pad(header), ...tensors.map(({ data }) => pad(data))]);
}

/** The path of a new file, model.gguf, of those bytes. */
export async function ggufFile(bytes: Uint8Array): Promise<string> {
  const path = join(await newFolder(), "model.gguf");
  await writeFile(path, bytes);
  return path;
}

export const float32Bytes = (values: Iterable<number>): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

function typeOf(value: MetadataValue): number {
  if (typeof value === "string") return 8;
  if (typeof value === "boolean") return 7;
  if (typeof value === "number") return Number.isInteger(value) ? 5 : 6;
  return 9;
}

function bytesOf(value: MetadataValue): Buffer {
  if (typeof value === "string") return text(value);
  if (typeof value === "boolean") return Buffer.from([value ? 1 : 0]);
  if (typeof value === "number" && Number.isInteger(value)) return Buffer.from(Int32Array.of(value).buffer);
  if (typeof value === "number") return Buffer.from(Float32Array.of(value).buffer);
  return Buffer.concat([uint32(typeOf(value[0]!)), uint64(value.length), ...value.map(bytesOf)]);
}

const uint32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
const uint64 = (value: number): Buffer => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const text = (value: string): Buffer => Buffer.concat([uint64(Buffer.byteLength(value)), Buffer.from(value)]);
