// The commonest merges without a detour over float32: weighted sums of bfloat16 tensors that are stored as bfloat16, and the
// dot products that their weights come from. Blocks of the sources are read and used while they are in a core's cache.
import type { Files, Place } from "./evaluate.js";
import type { ProductsOf } from "./method.js";
import { METHODS } from "./methods.js";
import type { PartRange } from "./parts.js";
import type { MergeSource, Source, TensorSource } from "./plan.js";
import { allocateBytes, arenaBytes, clearArena } from "./simd/arena.js";
import { addProductsBfloat16, MAX_TERMS, weightedSumBfloat16 } from "./simd/sums.js";

/** 256 kB: larger than the blocks of cat and cp, since each costs a few calls. */
const BLOCK_ELEMENTS = 2 ** 17;
/** Of 8 elements. */
const VECTOR_BYTES = 16;

/**
 * The bytes of such a part: the bits that decoding, summing and encoding give. Null where the part is none, and where a value
 * is not finite: then those steps tell which.
 */
export function sumBfloat16(files: Files, { tensor, range, known }: Place): Uint8Array | null {
  const { source, dtype } = tensor;
  if (source.kind !== "merge" || dtype !== "BF16") return null;
  const { method, settings, merge, base, models } = source;
  const sources = base === null ? models : [base, ...models];
  if (!sources.every(isBfloat16) || sources.length > MAX_TERMS) return null;
  const weights = METHODS[method].weights?.(settings, known[merge] ?? [], base !== null) ?? null;
  if (weights === null) return null;
  const read = blockReader(files, range, sources, range.length);
  const into = allocateBytes(range.length, 2);
  for (let start = 0; start < range.length; start += BLOCK_ELEMENTS) {
    const end = Math.min(start + BLOCK_ELEMENTS, range.length);
    if (!weightedSumBfloat16(into.subarray(2 * start, 2 * end), read(start, end), weights)) return null;
  }
  return into;
}

/**
 * The dot products of two bfloat16 tensors, or of their differences from a base, as a pass gives them. Null where it is not
 * two that are summed, or they end in half a vector, and where a value is not finite.
 */
export function productsBfloat16(
  files: Files,
  range: PartRange,
  { base, models }: MergeSource,
  of: ProductsOf,
): Float64Array | null {
  const origin = of === "sources" ? null : base;
  const vectors = of === "sources" && base !== null ? [base, ...models] : models;
  const sources = origin === null ? vectors : [...vectors, origin];
  if (vectors.length !== 2 || range.length % 4 > 0 || !sources.every(isBfloat16)) return null;
  const read = blockReader(files, range, sources, BLOCK_ELEMENTS);
  // Differences from zeros are the vectors themselves.
  const zeros = allocateBytes(BLOCK_ELEMENTS, 2).fill(0);
  let products: readonly [aa: number, ab: number, bb: number] = [0, 0, 0];
  for (let start = 0; start < range.length; start += BLOCK_ELEMENTS) {
    const [a, b, from = zeros] = read(start, Math.min(start + BLOCK_ELEMENTS, range.length));
    products = addProductsBfloat16(from, a!, b!, start > 0);
  }
  const [aa, ab, bb] = products;
  return Number.isFinite(aa + bb) ? Float64Array.of(aa, ab, ab, bb) : null;
}

const isBfloat16 = (source: Source): source is TensorSource =>
  source.kind === "tensor" && source.place.dtype === "BF16";

/**
 * Reads elements `start` to `end` of a part of each source, into the same memory each time. Clears the arena, in which there
 * is room for `others` more elements then.
 */
function blockReader(
  files: Files,
  range: PartRange,
  sources: readonly TensorSource[],
  others: number,
): (start: number, end: number) => readonly Uint8Array[] {
  clearArena(sources.length * arenaBytes(BLOCK_ELEMENTS, 2) + arenaBytes(others, 2));
  const blocks = sources.map(() => allocateBytes(BLOCK_ELEMENTS, 2));
  return (start, end) =>
    blocks.map((block, s) => {
      const { file, position } = sources[s]!.place;
      const bytes = block.subarray(0, 2 * (end - start));
      files.read(file, position + 2 * (range.start + start), bytes);
      // Kernels look at whole vectors.
      block.fill(0, bytes.length, bytes.length + VECTOR_BYTES);
      return bytes;
    });
}
