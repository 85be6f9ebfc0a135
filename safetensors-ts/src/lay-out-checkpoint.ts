// Which tensor goes into which file of a checkpoint, and where in it: known before the first byte of a tensor is.
import { byteLength, type TensorSpec } from "./dtypes.js";
import { INDEX_NAME, SINGLE_NAME } from "./open-checkpoint.js";
import { checkNames, compareUtf8, layOut } from "./write-header.js";

export interface CheckpointOptions {
  /** Most bytes of tensors in one file; a larger tensor gets a file of its own. @default 5e9, as huggingface_hub */
  readonly shardSize?: number;
  /** `__metadata__` of every file. @default {"format":"pt"}: transformers asks for it */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** One file: `header` comes first, then the tensors, each at its position; `bytes` is the length of the file. */
export interface Shard<T extends TensorSpec> {
  readonly name: string;
  readonly header: Uint8Array;
  readonly bytes: number;
  readonly tensors: readonly { readonly tensor: T; readonly position: number; readonly bytes: number }[];
}

export interface CheckpointLayout<T extends TensorSpec> {
  readonly shards: readonly Shard<T>[];
  /** Text of model.safetensors.index.json; null where there is one file, model.safetensors. */
  readonly index: string | null;
}

const DEFAULT_SHARD_SIZE = 5_000_000_000;

/** Lays out a checkpoint whose tensors fill files in the given order; within a file they are in the format's order. */
export function layOutCheckpoint<T extends TensorSpec>(
  unordered: Iterable<T>,
  { shardSize = DEFAULT_SHARD_SIZE, metadata = { format: "pt" } }: CheckpointOptions = {},
): CheckpointLayout<T> {
  if (!(shardSize > 0)) throw new RangeError(`shardSize should be a number of bytes above 0, got ${shardSize}`);
  const all = [...unordered];
  checkNames(all);
  const cut = cutShards(all, shardSize);
  const shards = cut.map((members, i): Shard<T> => {
    const { header, tensors } = layOut(members, metadata);
    let position = header.length;
    const placed = tensors.map((tensor) => {
      const bytes = byteLength(tensor);
      position += bytes;
      return { tensor, position: position - bytes, bytes };
    });
    return { name: shardName(i, cut.length), header, bytes: position, tensors: placed };
  });
  return { shards, index: shards.length > 1 ? indexJson(shards) : null };
}

const shardName = (i: number, count: number) => {
  const pad = (n: number) => String(n).padStart(5, "0");
  return count === 1 ? SINGLE_NAME : `model-${pad(i + 1)}-of-${pad(count)}.safetensors`;
};

/**
 * As huggingface_hub cuts: a tensor above the limit is a shard of its own and leaves the shard under way open, so that
 * it may come before tensors that were there first.
 */
function cutShards<T extends TensorSpec>(tensors: readonly T[], shardSize: number): T[][] {
  const shards: T[][] = [];
  let current: T[] = [];
  let bytes = 0;
  for (const tensor of tensors) {
    const size = byteLength(tensor);
    if (size > shardSize) {
      shards.push([tensor]);
      continue;
    }
    if (bytes + size > shardSize) {
      shards.push(current);
      current = [];
      bytes = 0;
    }
    current.push(tensor);
    bytes += size;
  }
  if (current.length > 0 || shards.length === 0) shards.push(current);
  return shards;
}

/** As transformers writes it: keys by code point, all of it ASCII. An object would put the keys that look like numbers first. */
function indexJson(shards: readonly Shard<TensorSpec>[]): string {
  const placed = shards.flatMap(({ name, tensors }) => tensors.map(({ tensor, bytes }) => ({ name, tensor, bytes })));
  const totalSize = placed.reduce((total, { bytes }) => total + bytes, 0);
  const lines = placed
    .sort((a, b) => compareUtf8(a.tensor.name, b.tensor.name))
    .map(({ name, tensor }) => `    ${asciiJson(tensor.name)}: ${asciiJson(name)}`);
  return `{
  "metadata": {
    "total_size": ${totalSize}
  },
  "weight_map": {
${lines.join(",\n")}
  }
}
`;
}

const asciiJson = (text: string) =>
  JSON.stringify(text).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Whether a file of that name belongs to the weights of a checkpoint folder. */
export const isWeightsFile = (name: string): boolean =>
  name === SINGLE_NAME || name === INDEX_NAME || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name);
