/** The weights of a model folder as tensors, checked against its config. */
import { type FileTensor, openCheckpoint, openSafetensors, type TensorInfo, toFloat32 } from "safetensors-ts";
import { tf } from "tfjs-jit";
import type { Adapter } from "./adapter.js";
import { partsOf, readInt8, readNf4 } from "./bitsandbytes.js";
import type { Quantisation } from "./compute.js";
import type { ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { isLayerMatrix, loraNames } from "./lora.js";
import { openMerged } from "./merge-adapter.js";
import { int8Tensors, nf4Tensors } from "./quantised.js";
import { EMBEDDING, HEAD, parameterShapes, textName } from "./shapes.js";
import { checkFinite, type Named, partsNamed, type Source, type Storage, weightOf } from "./stored-tensor.js";

type Checkpoint = Awaited<ReturnType<typeof openCheckpoint>>;

/** A quantised base: the layers' matrices in `kind`, the embedding in int8, the rest as it is stored. */
export const quantisedIn =
  (kind: Quantisation) =>
  (name: string): Storage =>
    name === EMBEDDING ? "int8" : isLayerMatrix(name) ? kind : "stored";

/**
 * Tensors by name, read one after the other; bfloat16 ones of a checkpoint in bfloat16 come to the device as they are.
 * `merged` is an adapter that becomes part of them: where they are kept in less than float32, they are rounded afterwards.
 * Checked are names and shapes (before anything is read), dtypes and that every value is finite; the safetensors format
 * itself is checked by the reader, whose errors pass through.
 */
export async function* readWeights(
  dir: string,
  config: ModelConfig,
  storageOf: (name: string) => Storage,
  merged: Adapter | null = null,
): AsyncGenerator<[name: string, weight: tf.Tensor]> {
  const checkpoint = await openCheckpoint(dir);
  const adapter = merged && (await openMerged(merged));
  try {
    const shapes = parameterShapes(config);
    const infos = textTensors(checkpoint.tensors);
    checkHeaders(dir, infos, shapes, storageOf);
    await checkHead(dir, checkpoint, infos);
    for (const [name, shape] of Object.entries(shapes)) {
      const replaced = adapter?.replaced(name);
      const change = (await adapter?.changeOf(name)) ?? null;
      const source: Source =
        adapter && replaced
          ? { path: adapter.file.path, file: adapter.file, info: replaced, change }
          : { path: dir, file: checkpoint, info: infos.get(name)!, change };
      try {
        yield* (await packed(source, name, shape, infos)) ?? (await weightOf(source, name, shape, storageOf(name)));
      } finally {
        change?.dispose();
      }
    }
  } finally {
    await checkpoint.close();
    await adapter?.file.close();
  }
}

/** A matrix that the checkpoint has in 4 or 8 bits; null for others. */
async function packed(
  { path, file, info: { dtype }, change }: Source,
  name: string,
  shape: readonly number[],
  infos: ReadonlyMap<string, TensorInfo>,
): Promise<Named | null> {
  if (dtype !== "U8" && dtype !== "I8") return null;
  if (change !== null) {
    const problem = `tensor "${name}" is in ${dtype === "U8" ? 4 : 8} bits, which no adapter becomes part of`;
    throw new ModelError(path, `${problem}: expected a base in bfloat16 or float32, which load_in_4bit quantises`);
  }
  const parts =
    dtype === "U8"
      ? nf4Tensors(await readNf4(path, file, infos, name, shape), shape[0]!)
      : int8Tensors(await readInt8(path, file, infos, name, shape), shape[0]!);
  return partsNamed(name, parts);
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
