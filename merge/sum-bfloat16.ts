// The most common merge in one reading of memory: a weighted sum of bfloat16 tensors that is stored as bfloat16.
import type { Files, Place } from "./evaluate.js";
import { METHODS } from "./methods.js";
import type { Source, TensorSource } from "./plan.js";
import { allocateBytes } from "./simd/arena.js";
import { MAX_TERMS, weightedSumBfloat16 } from "./simd/sums.js";

/**
 * The bytes of such a part: the bits that decoding, adding and encoding one after the other would give. Null where the part
 * is none, and where a value is not finite: then the steps one after the other say which.
 */
export function sumBfloat16(files: Files, { tensor, range, known }: Place): Uint8Array | null {
  const { source, dtype } = tensor;
  if (source.kind !== "merge" || dtype !== "BF16") return null;
  const inputs = source.base === null ? source.models : [source.base, ...source.models];
  if (!inputs.every(isBfloat16) || inputs.length > MAX_TERMS) return null;
  const { method, settings, merge, base } = source;
  const weights = METHODS[method].weights?.(settings, known[merge] ?? [], base !== null) ?? null;
  if (weights === null) return null;
  const sources = inputs.map(({ place }) => {
    const bytes = allocateBytes(range.length, 2);
    files.read(place.file, place.position + 2 * range.start, bytes);
    return bytes;
  });
  const into = allocateBytes(range.length, 2);
  return weightedSumBfloat16(into, sources, weights) ? into : null;
}

const isBfloat16 = (source: Source): source is TensorSource =>
  source.kind === "tensor" && source.place.dtype === "BF16";
