// Writes a checkpoint folder: model.safetensors, or shards and their index where it is larger than a shard may be.
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { NamedTensor } from "./dtypes.js";
import { checkDataLength } from "./format.js";
import { type CheckpointOptions, isWeightsFile, layOutCheckpoint } from "./lay-out-checkpoint.js";
import { INDEX_NAME } from "./open-checkpoint.js";
import {
  type StreamedTensor,
  stageFile,
  syncFolder,
  type WritableTensor,
  writeAll,
  writeTensors,
} from "./write-file.js";

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
  options: CheckpointOptions = {},
): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  if (!(Symbol.asyncIterator in tensors)) return writeShards(folder, tensors, options);

  const spoolPath = join(folder, `.spool-${process.pid}-${Date.now()}.tmp`);
  const spool = await open(spoolPath, "wx+");
  try {
    return await writeShards(folder, await fillSpool(spool, tensors), options);
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
  tensors: Iterable<WritableTensor>,
  options: CheckpointOptions,
): Promise<string[]> {
  const { shards, index } = layOutCheckpoint(tensors, options);
  const staged: { temporary: string; name: string }[] = [];
  const stage = async (name: string, write: (file: FileHandle) => Promise<void>) => {
    staged.push({ temporary: await stageFile(join(folder, name), write), name });
  };
  try {
    for (const { name, header, tensors } of shards) {
      const members = tensors.map(({ tensor }) => tensor);
      await stage(name, (file) => writeTensors(file, join(folder, name), header, members));
    }
    if (index !== null) await stage(INDEX_NAME, (file) => file.writeFile(index));
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

/** Files of an earlier checkpoint of the folder: readers would take model.safetensors before an index, whatever is newer. */
async function removeOldFiles(folder: string, written: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(folder)) {
    if (isWeightsFile(name) && !written.has(name)) await rm(join(folder, name));
  }
}
