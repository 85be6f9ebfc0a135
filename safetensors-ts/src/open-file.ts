// Opens one safetensors file: its header is read and checked, its tensors are read when asked for.
import { type FileHandle, open } from "node:fs/promises";
import { SafetensorsError } from "./error.js";
import { headerLength, LENGTH_BYTES, parseHeader, type TensorInfo } from "./read-header.js";

/** A tensor of an open file. */
export interface FileTensor extends TensorInfo {
  /** The file that holds it. */
  readonly path: string;
  /** Where its bytes begin, counted from the start of the file. */
  readonly position: number;
}

/** An open file. It holds a file descriptor until `close()`. */
export interface SafetensorsFile {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the file. */
  readonly tensors: readonly FileTensor[];
  /** The tensor of that name. */
  info(name: string): FileTensor;
  /** The tensor's bytes. Throws SafetensorsError if the file was cut or, by its time of change, written to since it was opened. */
  read(name: string): Promise<Uint8Array>;
  /** Bytes [begin, end) of the tensor, counted from its own start. Errors are those of `read`; RangeError for no such part. */
  readRange(name: string, begin: number, end: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** One system call reads or writes less than 2^31 bytes. */
export const MAX_IO_BYTES = 2 ** 30;

/** Throws SafetensorsError for a file that is missing, truncated or otherwise not valid safetensors. */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const handle = await openForReading(path);
  try {
    const stat = await handle.stat({ bigint: true });
    const fileBytes = Number(stat.size);
    if (!stat.isFile()) throw new SafetensorsError(path, "is not a file");
    const start = await readAt(handle, path, 0, Math.min(LENGTH_BYTES, fileBytes));
    const json = await readAt(handle, path, LENGTH_BYTES, headerLength(start, fileBytes, path));
    const { metadata, tensors: infos, dataStart } = parseHeader(json, fileBytes, path);
    const tensors = infos.map((info): FileTensor => ({ ...info, path, position: dataStart + info.begin }));

    const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    const info = (name: string): FileTensor => {
      const tensor = byName.get(name);
      if (!tensor) throw new SafetensorsError(path, `has no tensor "${name}"`, name);
      return tensor;
    };
    const readRange = async (name: string, begin: number, end: number) => {
      const tensor = info(name);
      const bytes = tensor.end - tensor.begin;
      if (!(begin >= 0 && begin <= end && end <= bytes)) {
        throw new RangeError(`${path}: bytes [${begin},${end}) of tensor "${name}", expected a part of [0,${bytes})`);
      }
      const bytesRead = await readAt(handle, path, tensor.position + begin, end - begin);
      const now = await handle.stat({ bigint: true });
      if (now.mtimeNs !== stat.mtimeNs || now.size !== stat.size) {
        throw new SafetensorsError(path, "was written to since it was opened, expected it to stay as it was", name);
      }
      return bytesRead;
    };
    const read = async (name: string) => {
      const { begin, end } = info(name);
      return readRange(name, 0, end - begin);
    };
    return { path, metadata, tensors, info, read, readRange, close: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new SafetensorsError(path, code === "ENOENT" ? "no such file" : `cannot be opened (${code})`, undefined, {
      cause,
    });
  }
}

async function readAt(handle: FileHandle, path: string, position: number, length: number): Promise<Uint8Array> {
  // Memory of its own (not of Node's pool), so that typed arrays over it are aligned; not zeroed, since all of it is read.
  const { buffer, byteOffset } = Buffer.allocUnsafeSlow(length);
  const bytes = new Uint8Array(buffer, byteOffset, length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, Math.min(length - done, MAX_IO_BYTES), position + done);
    if (bytesRead === 0) {
      const offset = position + done;
      throw new SafetensorsError(path, `ends at byte ${offset}: truncated since it was opened`, undefined, { offset });
    }
    done += bytesRead;
  }
  return bytes;
}
