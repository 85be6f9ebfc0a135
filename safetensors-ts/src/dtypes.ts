// Element types of the format and how many bits each takes.
import { SafetensorsError } from "./error.js";

/** Bits per element, in the order of the reference's enum: ascending alignment, which the writer's order is built on. */
export const BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type Dtype = keyof typeof BITS;

const RANKS = new Map(Object.keys(BITS).map((dtype, rank) => [dtype, rank]));

/** Position in the reference's enum, from 0 (BOOL) to 21 (U64). */
export const dtypeRank = (dtype: Dtype): number => RANKS.get(dtype)!;

export const isDtype = (text: string): text is Dtype => RANKS.has(text);

/** What a tensor is, without its data. `shape` is [] for a scalar. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** A tensor in memory: `data` is little endian, C order, `byteLength(spec)` bytes, at any alignment. */
export interface NamedTensor extends TensorSpec {
  readonly data: Uint8Array;
}

/** Bytes that a tensor of this dtype and shape takes. */
export function byteLength({ name, dtype, shape }: TensorSpec): number {
  const bits = shape.reduce((product, size) => product * size, BITS[dtype]);
  if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0) || !Number.isSafeInteger(bits)) {
    throw new SafetensorsError(undefined, `tensor "${name}" has shape [${shape}], expected whole numbers from 0`, name);
  }
  if (bits % 8 !== 0) {
    throw new SafetensorsError(
      undefined,
      `tensor "${name}" of dtype ${dtype} and shape [${shape}] takes ${bits} bits, expected a multiple of 8`,
      name,
    );
  }
  return bits / 8;
}
