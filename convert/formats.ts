// What ggml stores tensors as, by the number that a GGUF file has for it (enum ggml_type of ggml.h).
import { toFloat32 } from "safetensors-ts";
import { ModelError } from "../model/errors.js";
import type { GgufTensor } from "./gguf-header.js";
import { dequantizeQ4_K, dequantizeQ5_K, dequantizeQ6_K, SUPER_BLOCK } from "./k-quants.js";
import {
  type Dequantize,
  dequantizeQ4_0,
  dequantizeQ4_1,
  dequantizeQ5_0,
  dequantizeQ5_1,
  dequantizeQ8_0,
  LEGACY_BLOCK,
} from "./legacy-quants.js";

export interface Format {
  readonly name: string;
  /** Weights of a block, and the bytes that it takes. */
  readonly blockSize: number;
  readonly blockBytes: number;
  readonly dequantize: Dequantize;
}

const plain = (name: "F32" | "F16" | "BF16", bytes: number): Format => ({
  name,
  blockSize: 1,
  blockBytes: bytes,
  dequantize: (data, into) => void toFloat32(data, name, into),
});
const legacy = (name: string, blockBytes: number, dequantize: Dequantize): Format => ({
  name,
  blockSize: LEGACY_BLOCK,
  blockBytes,
  dequantize,
});
const kQuant = (name: string, blockBytes: number, dequantize: Dequantize): Format => ({
  name,
  blockSize: SUPER_BLOCK,
  blockBytes,
  dequantize,
});

export const FORMATS: ReadonlyMap<number, Format> = new Map([
  [0, plain("F32", 4)],
  [1, plain("F16", 2)],
  [2, legacy("Q4_0", 18, dequantizeQ4_0)],
  [3, legacy("Q4_1", 20, dequantizeQ4_1)],
  [6, legacy("Q5_0", 22, dequantizeQ5_0)],
  [7, legacy("Q5_1", 24, dequantizeQ5_1)],
  [8, legacy("Q8_0", 34, dequantizeQ8_0)],
  [12, kQuant("Q4_K", 144, dequantizeQ4_K)],
  [13, kQuant("Q5_K", 176, dequantizeQ5_K)],
  [14, kQuant("Q6_K", 210, dequantizeQ6_K)],
  [30, plain("BF16", 2)],
]);

/** Names of types that are not read, for messages. */
const OTHER_NAMES: Readonly<Record<number, string>> = {
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

/** How a tensor is stored. Throws a ModelError for a type that is not read and for rows that are no whole blocks. */
export function formatOf(path: string, { name, type, shape }: GgufTensor): Format {
  const format = FORMATS.get(type);
  if (format === undefined) {
    const known = [...FORMATS.values()].map(({ name }) => name).join(", ");
    const got = OTHER_NAMES[type] ?? `of type ${type}`;
    throw new ModelError(path, `tensor "${name}" is ${got}, expected one of ${known}`);
  }
  const width = shape.at(-1) ?? 1;
  if (width % format.blockSize !== 0) {
    const problem = `tensor "${name}" has rows of ${width}, expected a multiple of ${format.blockSize} for ${format.name}`;
    throw new ModelError(path, problem);
  }
  return format;
}
