/** The weights of a model folder as tensors, checked against its config. */
import { type FileTensor, openCheckpoint, openSafetensors, type TensorInfo, toFloat32 } from "safetensors-ts";
import { bfloat16Tensor, tf, toBfloat16 } from "tfjs-jit";
import type { Adapter } from "./adapter.js";
import { partsOf, readInt8, readNf4 } from "./bitsandbytes.js";
import type { Quantisation } from "./compute.js";
import type { ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { isLayerMatrix, loraNames } from "./lora.js";
import { BLOCK, nf4Blocks, quantiseAbsmax, quantiseInt8 } from "./quantise.js";
import { int8Tensors, nf4Tensors, type Parts } from "./quantised.js";
import { EMBEDDING, HEAD, parameterShapes, textName } from "./shapes.js";

type Checkpoint = Awaited<ReturnType<typeof openCheckpoint>>;

/**
 * What a tensor is kept in on the device: "stored" is bfloat16 where the checkpoint is, else float32. A matrix in nf4 or int8
 * is several tensors (quantised.ts). One that the checkpoint has in 4 or 8 bits stays in these; asked for
 * in the others it is an error.
 */
export type Storage = "float32" | "bfloat16" | "stored" | "nf4" | "int8";

/** A quantised base: the layers' matrices in `kind`, the embedding in int8, the rest as it is stored. */
export const quantisedIn =
  (kind: Quantisation) =>
  (name: string): Storage =>
    name === EMBEDDING ? "int8" : isLayerMatrix(name) ? kind : "stored";

/**
 * Tensors by name, read one after the other; bfloat16 ones of a checkpoint in bfloat16 come to the device as they are.
 * Checked are names and shapes (before anything is read), dtypes and that every value is finite; the safetensors format
 * itself is checked by the reader, whose errors pass through.
 */
export async function* readWeights(
  dir: string,
  config: ModelConfig,
  storageOf: (name: string) => Storage,
): AsyncGenerator<[name: string, weight: tf.Tensor]> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const shapes = parameterShapes(config);
    const infos = textTensors(checkpoint.tensors);
    checkHeaders(dir, infos, shapes, storageOf);
    await checkHead(dir, checkpoint, infos);
    for (const [name, shape] of Object.entries(shapes)) {
      const storage = storageOf(name);
      const { name: stored, dtype } = infos.get(name)!;
      if (dtype === "U8") {
        yield* partsNamed(name, nf4Tensors(await readNf4(dir, checkpoint, infos, name, shape), shape[0]!));
      } else if (dtype === "I8") {
        yield* partsNamed(name, int8Tensors(await readInt8(dir, checkpoint, infos, name, shape), shape[0]!));
      } else if (storage === "nf4" || storage === "int8") {
        yield* partsNamed(name, await quantised(dir, checkpoint, infos.get(name)!, storage));
      } else if (dtype === "BF16" && storage !== "float32") {
        const data = await checkpoint.read(stored);
        const bits = new Uint16Array(data.buffer, data.byteOffset, data.length / 2);
        checkFinite(
          dir,
          name,
          bits,
          (x) => (x & 0x7f80) === 0x7f80,
          (i) => toFloat32(data.subarray(2 * i, 2 * i + 2), "BF16")[0]!,
        );
        yield [name, bfloat16Tensor(bits, shape)];
      } else {
        const values = await checkpoint.readFloat32(stored);
        checkFinite(
          dir,
          name,
          values,
          (x) => !Number.isFinite(x),
          (i) => values[i]!,
        );
        const tensor = tf.tensor(values, shape);
        yield [name, storage === "bfloat16" ? rounded(tensor) : tensor];
      }
    }
  } finally {
    await checkpoint.close();
  }
}

/** An adapter's tensors in float32, by their names beside the model's: scales, matrices, and what is stored whole. */
export async function* readAdapterWeights({
  file: path,
  updates,
  replaced,
}: Adapter): AsyncGenerator<[name: string, weight: tf.Tensor]> {
  const file = await openSafetensors(path);
  const read = async ({ name, dtype, shape }: FileTensor) => {
    const values = toFloat32(await file.read(name), dtype);
    checkFinite(
      path,
      name,
      values,
      (x) => !Number.isFinite(x),
      (i) => values[i]!,
    );
    return tf.tensor(values, [...shape]);
  };
  try {
    for (const [name, tensor] of replaced) yield [name, await read(tensor)];
    for (const [name, { a, b, scale }] of updates) {
      const names = loraNames(name);
      yield [names.a, await read(a)];
      yield [names.b, await read(b)];
      yield [names.scale, tf.scalar(scale)];
    }
  } finally {
    await file.close();
  }
}

/** All of them; the caller disposes them. */
export async function loadWeights(
  dir: string,
  config: ModelConfig,
  storageOf: (name: string) => Storage = () => "float32",
): Promise<Record<string, tf.Tensor>> {
  const weights: Record<string, tf.Tensor> = {};
  try {
    for await (const [name, weight] of readWeights(dir, config, storageOf)) weights[name] = weight;
    return weights;
  } catch (error) {
    tf.dispose(weights);
    throw error;
  }
}

const partsNamed = (name: string, parts: Parts): [name: string, weight: tf.Tensor][] =>
  Object.entries(parts).map(([part, tensor]) => [`${name}.${part}`, tensor]);

/** Values that are quantised at a time, in float32: of an embedding there are gigabytes. A multiple of a block's. */
const CHUNK = 2 ** 22;

async function quantised(dir: string, checkpoint: Checkpoint, info: TensorInfo, storage: Quantisation): Promise<Parts> {
  const [rows, columns] = info.shape as [number, number];
  const size = rows * columns;
  const [isPacked, whole] =
    storage === "nf4"
      ? [columns % 8 === 0 && size % BLOCK === 0, "a multiple of 64 values in rows of a multiple of 8"]
      : [columns % 4 === 0, "rows of a multiple of 4 values"];
  if (!isPacked) {
    throw new ModelError(dir, `tensor "${info.name}" has shape [${info.shape}], expected ${whole} for ${storage}`);
  }
  const chunk = async (begin: number, end: number): Promise<Float32Array> => {
    const bytes = (info.end - info.begin) / size;
    const values = toFloat32(await checkpoint.readRange(info.name, bytes * begin, bytes * end), info.dtype);
    checkFinite(
      dir,
      info.name,
      values,
      (x) => !Number.isFinite(x),
      (i) => values[i]!,
      begin,
    );
    return values;
  };
  if (storage === "nf4") {
    const [codes, absmax] = [new Uint8Array(size / 2), new Float32Array(size / BLOCK)];
    for (let begin = 0; begin < size; begin += CHUNK) {
      const made = nf4Blocks(await chunk(begin, Math.min(size, begin + CHUNK)));
      codes.set(made.codes, begin / 2);
      absmax.set(made.absmax, begin / BLOCK);
    }
    return nf4Tensors(quantiseAbsmax({ codes, absmax }), rows);
  }
  const [codes, scale] = [new Int8Array(size), new Float32Array(rows)];
  const count = Math.ceil(CHUNK / columns);
  for (let row = 0; row < rows; row += count) {
    const end = Math.min(rows, row + count);
    const made = quantiseInt8(await chunk(row * columns, end * columns), end - row);
    codes.set(made.codes, row * columns);
    scale.set(made.scale, row);
  }
  return int8Tensors({ codes, scale }, rows);
}

function rounded(tensor: tf.Tensor): tf.Tensor {
  const bfloat16 = toBfloat16(tensor);
  tensor.dispose();
  return bfloat16;
}

/** What a checkpoint holds of the text model, by its names there. */
function textTensors(tensors: readonly TensorInfo[]): Map<string, TensorInfo> {
  const named = tensors.map((info) => [textName(info.name), info] as const);
  return new Map(named.flatMap(([name, info]) => (name === null ? [] : [[name, info]])));
}

function checkHeaders(
  dir: string,
  infos: ReadonlyMap<string, TensorInfo>,
  shapes: Record<string, number[]>,
  storageOf: (name: string) => Storage,
): void {
  const expected: Record<string, number[]> = infos.has(HEAD) ? { ...shapes, [HEAD]: shapes[EMBEDDING]! } : shapes;
  const parts = new Set<string>();
  for (const [name, shape] of Object.entries(expected)) {
    const info = infos.get(name);
    if (info !== undefined && isLayerMatrix(name) && (info.dtype === "U8" || info.dtype === "I8")) {
      checkBits(dir, info, storageOf(name));
      // Their shapes are checked with their other parts, when they are read.
      for (const part of partsOf(name, info, infos)) parts.add(part);
      continue;
    }
    if (!info) throw new ModelError(dir, `tensor "${name}" is missing, expected shape [${shape}] by config.json`);
    if (`${info.shape}` !== `${shape}`) {
      throw new ModelError(dir, `tensor "${name}" has shape [${info.shape}], expected [${shape}] by config.json`);
    }
    if (!["F32", "BF16", "F16"].includes(info.dtype)) {
      throw new ModelError(dir, `tensor "${name}" has dtype ${info.dtype}, expected F32, BF16 or F16`);
    }
  }
  const unexpected = [...infos].find(([name]) => !(name in expected || parts.has(name)));
  if (unexpected) {
    throw new ModelError(dir, `tensor "${unexpected[1].name}" is no part of the model that config.json describes`);
  }
}

/** What is in 4 bits is not in 8 bits, and the other way round. */
function checkBits(dir: string, { name, dtype }: TensorInfo, storage: Storage): void {
  const [bits, others] = dtype === "U8" ? [4, 8] : [8, 4];
  if (storage !== (bits === 4 ? "int8" : "nf4")) return;
  const expected = `expected load_in_${bits}bit or neither, got load_in_${others}bit`;
  throw new ModelError(dir, `tensor "${name}" is in ${bits} bits (bitsandbytes): ${expected}`);
}

/** A head that differs from the embedding is another model: transformers would not tie them. */
async function checkHead(dir: string, checkpoint: Checkpoint, infos: ReadonlyMap<string, TensorInfo>): Promise<void> {
  if (!infos.has(HEAD)) return;
  const read = (name: string) => checkpoint.read(infos.get(name)!.name);
  const [head, embedding] = [await read(HEAD), await read(EMBEDDING)];
  if (Buffer.compare(head, embedding) !== 0) {
    throw new ModelError(dir, `tensor "${HEAD}" differs from "${EMBEDDING}", expected the same values (a tied head)`);
  }
}

function checkFinite<T>(
  dir: string,
  name: string,
  values: ArrayLike<T>,
  isWrong: (value: T) => boolean,
  valueAt: (index: number) => number,
  first = 0,
): void {
  for (let i = 0; i < values.length; i++)
    if (isWrong(values[i]!))
      throw new ModelError(dir, `tensor "${name}" is ${valueAt(i)} at index ${first + i}, expected finite numbers`);
}
