// Writes one safetensors file so that a reader sees the old file or the new one, whole, at every instant.
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { byteLength, type NamedTensor, type TensorSpec } from "./dtypes.js";
import { checkDataLength } from "./format.js";
import { MAX_IO_BYTES } from "./open-file.js";
import { layOut } from "./write-header.js";

/** A tensor whose bytes are made while the file is written: `chunks()` is called once and gives them from first to last. */
export interface StreamedTensor extends TensorSpec {
  chunks(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export type WritableTensor = NamedTensor | StreamedTensor;

/**
 * Writes the same bytes as `serialize`, in a temporary sibling that replaces `path` when it is whole and on disk.
 * On failure `path` is untouched and the sibling is gone. Memory: one chunk of one streamed tensor.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<WritableTensor>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  const layout = layOut(tensors, metadata);
  await replaceFile(path, (file) => writeTensors(file, path, layout.header, layout.tensors));
}

/** Lets `write` fill a temporary sibling of `path`, then puts it in the place of `path`. */
export async function replaceFile(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = await stageFile(path, write);
  try {
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Lets `write` fill a temporary sibling of `path` and returns the sibling's path; removes it if `write` fails. */
export async function stageFile(path: string, write: (file: FileHandle) => Promise<void>): Promise<string> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
  const file = await open(temporary, "wx");
  try {
    await write(file);
    await file.sync();
    await file.close();
  } catch (error) {
    await file.close();
    await rm(temporary, { force: true });
    throw error;
  }
  return temporary;
}

/** A rename is on disk once its folder is. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Writes header and tensors, in the order of their layout, from the start of an empty file. `path` is for error messages. */
export async function writeTensors(
  file: FileHandle,
  path: string,
  header: Uint8Array,
  tensors: readonly WritableTensor[],
): Promise<void> {
  for (const tensor of tensors) if ("data" in tensor) checkDataLength(tensor, tensor.data.length, path);
  await writeAll(file, header);
  for (const tensor of tensors) {
    if ("data" in tensor) await writeAll(file, tensor.data);
    else checkDataLength(tensor, await writeChunks(file, tensor), path);
  }
}

async function writeChunks(file: FileHandle, tensor: StreamedTensor): Promise<number> {
  const needed = byteLength(tensor);
  let written = 0;
  for await (const chunk of tensor.chunks()) {
    written += chunk.length;
    if (written > needed) break;
    await writeAll(file, chunk);
  }
  return written;
}

/** Writes all the bytes at the file's position. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, Math.min(bytes.length - done, MAX_IO_BYTES))).bytesWritten;
  }
}
