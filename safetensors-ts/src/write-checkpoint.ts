// Writes a checkpoint folder: model.safetensors, or shards and their index where it is larger than a shard may be.
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { byteLength, type NamedTensor, type TensorSpec } from "./dtypes.js";
import { checkDataLength } from "./format.js";
import { INDEX_NAME, SINGLE_NAME } from "./open-checkpoint.js";
import {
  type StreamedTensor,
  stageFile,
  syncFolder,
  type WritableTensor,
  writeAll,
  writeTensors,
} from "./write-file.js";
import { checkNames } from "./write-header.js";

export interface WriteCheckpointOptions {
  /** Most bytes of tensors in one file; a larger tensor gets a file of its own. @default 5e9, as huggingface_hub */
  readonly shardSize?: number;
  /** `__metadata__` of every file. @default {"format":"pt"}: transformers asks for it */
  readonly metadata?: Readonly<Record<string, string>>;
}

const DEFAULT_SHARD_SIZE = 5_000_000_000;
/** Copies from the spool file move this many bytes at a time. */
const COPY_BYTES = 16 * 2 ** 20;

/**
 * Returns the names of the files written. Tensors fill shards in the given order.
 * Tensors of an async iterable are spooled to a temporary file as they come (a shard's header precedes its data and needs
 * all names), so memory holds one tensor; an iterable of `StreamedTensor` needs no spool.
 * Every file is whole on disk before the first is renamed, and on failure no temporary file is left. Replacing a checkpoint
 * of several files is not one atomic step: for that, write into a new folder and rename the folder.
 */
export async function writeCheckpoint(
  folder: string,
  tensors: Iterable<WritableTensor> | AsyncIterable<NamedTensor>,
  { shardSize = DEFAULT_SHARD_SIZE, metadata = { format: "pt" } }: WriteCheckpointOptions = {},
): Promise<string[]> {
  if (!(shardSize > 0)) throw new RangeError(`shardSize should be a number of bytes above 0, got ${shardSize}`);
  await mkdir(folder, { recursive: true });
  if (!(Symbol.asyncIterator in tensors)) return writeShards(folder, [...tensors], shardSize, metadata);

  const spoolPath = join(folder, `.spool-${process.pid}-${Date.now()}.tmp`);
  const spool = await open(spoolPath, "wx+");
  try {
    return await writeShards(folder, await fillSpool(spool, tensors), shardSize, metadata);
  } finally {
    await spool.close();
    await rm(spoolPath);
  }
}

async function fillSpool(spool: FileHandle, tensors: AsyncIterable<NamedTensor>): Promise<StreamedTensor[]> {
  const spooled: StreamedTensor[] = [];
  let position = 0;
  for await (const { name, dtype, shape, data } of tensors) {
    checkDataLength({ name, dtype, shape }, data.length);
    await writeAll(spool, data);
    const [begin, end] = [position, position + data.length];
    spooled.push({ name, dtype, shape, chunks: () => copyOf(spool, begin, end) });
    position = end;
  }
  return spooled;
}

async function* copyOf(file: FileHandle, begin: number, end: number): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(COPY_BYTES, end - begin));
  for (let at = begin; at < end; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, end - at), at);
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}

async function writeShards(
  folder: string,
  tensors: readonly WritableTensor[],
  shardSize: number,
  metadata: Readonly<Record<string, string>>,
): Promise<string[]> {
  checkNames(tensors);
  const shards = cutShards(tensors, shardSize);
  const names = shards.map((_, i) => shardName(i, shards.length));
  const staged: { temporary: string; name: string }[] = [];
  const stage = async (name: string, write: (file: FileHandle) => Promise<void>) => {
    staged.push({ temporary: await stageFile(join(folder, name), write), name });
  };
  try {
    for (const [i, shard] of shards.entries()) {
      await stage(names[i]!, (file) => writeTensors(file, join(folder, names[i]!), shard, metadata));
    }
    if (shards.length > 1) await stage(INDEX_NAME, (file) => file.writeFile(indexJson(shards, names)));
    for (const { temporary, name } of staged) await rename(temporary, join(folder, name));
  } catch (error) {
    for (const { temporary } of staged) await rm(temporary, { force: true });
    throw error;
  }
  const written = staged.map(({ name }) => name);
  await removeOldFiles(folder, new Set(written));
  await syncFolder(folder);
  return written;
}

const shardName = (i: number, count: number) => {
  const pad = (n: number) => String(n).padStart(5, "0");
  return count === 1 ? SINGLE_NAME : `model-${pad(i + 1)}-of-${pad(count)}.safetensors`;
};

function cutShards<T extends TensorSpec>(tensors: readonly T[], shardSize: number): T[][] {
  const shards: T[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    const size = byteLength(tensor);
    if (bytes > 0 && bytes + size > shardSize) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += size;
  }
  return shards;
}

function indexJson(shards: readonly (readonly TensorSpec[])[], names: readonly string[]): string {
  const tensors = shards.flat();
  const totalSize = tensors.reduce((total, tensor) => total + byteLength(tensor), 0);
  const weightMap = shards.flatMap((shard, i) => shard.map(({ name }): [string, string] => [name, names[i]!]));
  const sorted = weightMap.sort(([a], [b]) => (a < b ? -1 : 1));
  const index = { metadata: { total_size: totalSize }, weight_map: Object.fromEntries(sorted) };
  return `${JSON.stringify(index, null, 2)}\n`;
}

/** Files of an earlier checkpoint of the folder: readers would take model.safetensors before an index, whatever is newer. */
async function removeOldFiles(folder: string, written: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(folder)) {
    const isWeights = name === SINGLE_NAME || name === INDEX_NAME || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name);
    if (isWeights && !written.has(name)) await rm(join(folder, name));
  }
}
