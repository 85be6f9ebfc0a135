/** One tensor of a file on its way to the device: as it is stored, rounded, or quantised. */
import { type SafetensorsFile, type TensorInfo, toFloat32 } from "safetensors-ts";
import { bfloat16Tensor, tf, toBfloat16 } from "tfjs-jit";
import type { Quantisation } from "./compute.js";
import { ModelError } from "./errors.js";
import type { Change } from "./merge-adapter.js";
import { BLOCK, nf4Blocks, quantiseAbsmax, quantiseInt8 } from "./quantise.js";
import { int8Tensors, nf4Tensors, type Parts } from "./quantised.js";

/**
 * What a tensor is kept in on the device: "stored" is bfloat16 where the checkpoint is, else float32. A matrix in nf4 or int8
 * is several tensors (quantised.ts). One that the checkpoint has in 4 or 8 bits stays in these; asked for in the others it
 * is an error.
 */
export type Storage = "float32" | "bfloat16" | "stored" | "nf4" | "int8";

/** Where a tensor is read from, and what is added to it. */
export type Source = {
  readonly path: string;
  readonly file: Pick<SafetensorsFile, "read" | "readRange">;
  readonly info: TensorInfo;
  readonly change: Change | null;
};

/** Tensors by their names in the model. */
export type Named = [name: string, weight: tf.Tensor][];

/** The tensor, or those that it is quantised in. */
export async function weightOf(
  source: Source,
  name: string,
  shape: readonly number[],
  storage: Storage,
): Promise<Named> {
  if (storage === "nf4" || storage === "int8") return partsNamed(name, await quantised(source, storage));
  const { dtype } = source.info;
  const isRounded = storage === "bfloat16" || (storage === "stored" && dtype === "BF16");
  if (isRounded && dtype === "BF16" && source.change === null) return [[name, await storedHalves(source, shape)]];
  const tensor = tf.tensor(await valuesOf(source), [...shape]);
  return [[name, isRounded ? rounded(tensor) : tensor]];
}

async function storedHalves({ path, file, info: { name } }: Source, shape: readonly number[]): Promise<tf.Tensor> {
  const data = await file.read(name);
  const bits = new Uint16Array(data.buffer, data.byteOffset, data.length / 2);
  const valueAt = (i: number) => toFloat32(data.subarray(2 * i, 2 * i + 2), "BF16")[0]!;
  checkFinite(path, name, bits, (x) => (x & 0x7f80) === 0x7f80, valueAt);
  return bfloat16Tensor(bits, [...shape]);
}

/** Those values that begin at `begin`, all of them if nothing else is said, in float32. */
async function valuesOf({ path, file, info, change }: Source, begin = 0, end = sizeOf(info)): Promise<Float32Array> {
  const bytes = (info.end - info.begin) / sizeOf(info);
  const values = toFloat32(await file.readRange(info.name, bytes * begin, bytes * end), info.dtype);
  change?.addTo(values, begin);
  const isWrong = (x: number) => !Number.isFinite(x);
  checkFinite(path, info.name, values, isWrong, (i) => values[i]!, begin);
  return values;
}

const sizeOf = ({ shape }: TensorInfo): number => shape.reduce((a, b) => a * b, 1);

export const partsNamed = (name: string, parts: Parts): Named =>
  Object.entries(parts).map(([part, tensor]) => [`${name}.${part}`, tensor]);

/** Values that are quantised at a time, in float32: of an embedding there are gigabytes. A multiple of a block's. */
const CHUNK = 2 ** 22;

async function quantised(source: Source, storage: Quantisation): Promise<Parts> {
  const { path, info } = source;
  const [rows, columns] = info.shape as [number, number];
  const size = rows * columns;
  const [isPacked, whole] =
    storage === "nf4"
      ? [columns % 8 === 0 && size % BLOCK === 0, "a multiple of 64 values in rows of a multiple of 8"]
      : [columns % 4 === 0, "rows of a multiple of 4 values"];
  if (!isPacked) {
    throw new ModelError(path, `tensor "${info.name}" has shape [${info.shape}], expected ${whole} for ${storage}`);
  }
  if (storage === "nf4") {
    const [codes, absmax] = [new Uint8Array(size / 2), new Float32Array(size / BLOCK)];
    for (let begin = 0; begin < size; begin += CHUNK) {
      const made = nf4Blocks(await valuesOf(source, begin, Math.min(size, begin + CHUNK)));
      codes.set(made.codes, begin / 2);
      absmax.set(made.absmax, begin / BLOCK);
    }
    return nf4Tensors(quantiseAbsmax({ codes, absmax }), rows);
  }
  const [codes, scale] = [new Int8Array(size), new Float32Array(rows)];
  const count = Math.ceil(CHUNK / columns);
  for (let row = 0; row < rows; row += count) {
    const end = Math.min(rows, row + count);
    const made = quantiseInt8(await valuesOf(source, row * columns, end * columns), end - row);
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

export function checkFinite<T>(
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
