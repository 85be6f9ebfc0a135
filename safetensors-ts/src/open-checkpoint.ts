// Opens a checkpoint, one file or shards with an index, as if it were one file.
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { SafetensorsError } from "./error.js";
import { type FileTensor, openSafetensors, type SafetensorsFile } from "./open-file.js";
import { toFloat32 } from "./to-float.js";

export const SINGLE_NAME = "model.safetensors";
export const INDEX_NAME = "model.safetensors.index.json";

/** A tensor and the name of the file that holds it; `begin` and `end` count in that file. */
export interface CheckpointTensor extends FileTensor {
  readonly file: string;
}

/** An open checkpoint. It holds one file descriptor a file until `close()`. */
export interface Checkpoint {
  /** As given to `openCheckpoint`. */
  readonly path: string;
  /** Names of its files, sorted. */
  readonly files: readonly string[];
  /** `__metadata__` of all files together; where two disagree, the later file's. */
  readonly metadata: Readonly<Record<string, string>>;
  /** File by file, in the order of each file. */
  readonly tensors: readonly CheckpointTensor[];
  /** The tensor of that name. */
  info(name: string): CheckpointTensor;
  /** The tensor's bytes. */
  read(name: string): Promise<Uint8Array>;
  /** Bytes [begin, end) of the tensor, counted from its own start. */
  readRange(name: string, begin: number, end: number): Promise<Uint8Array>;
  /** The tensor's elements, row by row, as `toFloat32` gives them. */
  readFloat32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * `path` is a folder (model.safetensors, else model.safetensors.index.json and its shards), a .safetensors file or an index.
 * Headers are read and checked against each other and the index; tensors are read when asked for.
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const { folder, files, weightMap } = await findFiles(path);
  const opened: SafetensorsFile[] = [];
  const close = async () => {
    await Promise.all(opened.map((file) => file.close()));
  };
  try {
    for (const file of files) opened.push(await openShard(path, folder, file, weightMap));
    const owners = new Map<string, SafetensorsFile>();
    for (const file of opened) {
      for (const { name } of file.tensors) {
        const other = owners.get(name);
        if (other)
          throw new SafetensorsError(
            path,
            `tensor "${name}" is in ${basename(other.path)} and ${basename(file.path)}`,
            name,
          );
        owners.set(name, file);
      }
    }
    if (weightMap) checkIndex(path, weightMap, owners);

    const tensors = opened.flatMap((file) => file.tensors.map((tensor) => ({ ...tensor, file: basename(file.path) })));
    const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    const info = (name: string): CheckpointTensor => {
      const tensor = byName.get(name);
      if (!tensor) throw new SafetensorsError(path, `has no tensor "${name}"`, name);
      return tensor;
    };
    const readRange = async (name: string, begin: number, end: number) => {
      info(name);
      return owners.get(name)!.readRange(name, begin, end);
    };
    const read = async (name: string) => {
      const { begin, end } = info(name);
      return readRange(name, 0, end - begin);
    };
    return {
      path,
      files,
      metadata: Object.fromEntries(opened.flatMap((file) => Object.entries(file.metadata))),
      tensors,
      info,
      read,
      readRange,
      readFloat32: async (name) => toFloat32(await read(name), info(name).dtype),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

type WeightMap = ReadonlyMap<string, string>;

async function findFiles(path: string): Promise<{ folder: string; files: string[]; weightMap?: WeightMap }> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new SafetensorsError(path, "no such file or folder");
  if (!found.isDirectory()) {
    return path.endsWith(".json") ? readIndex(path) : { folder: dirname(path), files: [basename(path)] };
  }
  const names = await readdir(path);
  if (names.includes(SINGLE_NAME)) return { folder: path, files: [SINGLE_NAME] };
  if (names.includes(INDEX_NAME)) return readIndex(join(path, INDEX_NAME));
  const others = names.filter((name) => name.endsWith(".safetensors")).join(", ");
  const hint = others === "" ? "" : ` (it has ${others})`;
  throw new SafetensorsError(path, `holds neither ${SINGLE_NAME} nor ${INDEX_NAME}${hint}`);
}

async function readIndex(path: string): Promise<{ folder: string; files: string[]; weightMap: WeightMap }> {
  const text = await readFile(path, "utf8");
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (cause) {
    throw new SafetensorsError(path, `is not valid JSON: ${(cause as Error).message}`, undefined, { cause });
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new SafetensorsError(path, `has no "weight_map" object from tensor names to file names`);
  }
  const weightMap = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    // A name with a folder in it could read any file of the machine.
    if (typeof file !== "string" || !file.endsWith(".safetensors") || /[/\\]/.test(file)) {
      const got = JSON.stringify(file);
      throw new SafetensorsError(
        path,
        `maps tensor "${name}" to ${got}, expected a .safetensors file of the same folder`,
        name,
      );
    }
    weightMap.set(name, file);
  }
  return { folder: dirname(path), files: [...new Set(weightMap.values())].sort(byCodeUnits), weightMap };
}

const byCodeUnits = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

async function openShard(path: string, folder: string, file: string, weightMap?: WeightMap): Promise<SafetensorsFile> {
  const shard = join(folder, file);
  if (weightMap && !(await stat(shard).catch(() => undefined))) {
    const names = [...weightMap].filter(([, owner]) => owner === file).map(([name]) => name);
    throw new SafetensorsError(
      path,
      `shard ${file} is missing; the index has ${names.length} tensors in it, "${names[0]}" first`,
    );
  }
  return openSafetensors(shard);
}

/** Index and shards must agree: a tensor that only one of them knows means that files were mixed up or lost. */
function checkIndex(path: string, weightMap: WeightMap, owners: ReadonlyMap<string, SafetensorsFile>): void {
  for (const [name, file] of weightMap) {
    const owner = owners.get(name);
    const found = owner ? `it is in ${basename(owner.path)}` : "no shard has it";
    if (!owner || basename(owner.path) !== file) {
      throw new SafetensorsError(path, `the index has tensor "${name}" in ${file}, but ${found}`, name);
    }
  }
  for (const [name, file] of owners) {
    if (!weightMap.has(name)) {
      throw new SafetensorsError(path, `tensor "${name}" of ${basename(file.path)} is not in the index`, name);
    }
  }
}
