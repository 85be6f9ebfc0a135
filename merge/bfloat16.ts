// The commonest merges straight from the files' bytes: weighted sums of bfloat16 tensors that are stored as bfloat16, and the
// dot products that their weights come from. Blocks of the sources are read and used while they are in a core's cache.
import type { Files, Place } from "./evaluate.js";
import type { ProductsOf } from "./method.js";
import { METHODS } from "./methods.js";
import type { PartRange } from "./parts.js";
import type { MergeSource, Source, TensorSource } from "./plan.js";
import { allocateBytes, arenaBytes, clearArena, VECTOR } from "./simd/arena.js";
import { addProductsBfloat16, MAX_TERMS, weightedSumBfloat16 } from "./simd/sums.js";

/** 256 kB: larger than the blocks of cat and cp, since each costs a few calls. */
const BLOCK_ELEMENTS = 2 ** 17;

/** Task vectors whose squares are on average below this are left to float64: float32 ends at 2^-126. */
const LEAST_SQUARE = 2 ** -126;

/** What the sources of such a sum are multiplied by; null where a tensor is not made by one. */
export function bfloat16Weights({ tensor, known }: Place): readonly number[] | null {
  const { source, dtype } = tensor;
  if (source.kind !== "merge" || dtype !== "BF16") return null;
  const { method, settings, merge, base } = source;
  const sources = sourcesOf(source);
  if (!sources.every(isBfloat16) || sources.length > MAX_TERMS) return null;
  return METHODS[method].weights?.(settings, known[merge] ?? [], base !== null) ?? null;
}

/** The bytes of a part of such a sum. Null where a value is not finite: decoding, summing and encoding tell which. */
export function sumBfloat16(files: Files, { tensor, range }: Place, weights: readonly number[]): Uint8Array | null {
  const sources = sourcesOf(tensor.source as MergeSource) as readonly TensorSource[];
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
 * two that are summed, where a value is not finite, and where float32 is too coarse for the squares.
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
  if (vectors.length !== 2 || !sources.every(isBfloat16)) return null;
  const read = blockReader(files, range, sources, BLOCK_ELEMENTS);
  // Differences from zeros are the vectors themselves.
  const zeros = allocateBytes(BLOCK_ELEMENTS, 2).fill(0);
  const least = range.length * LEAST_SQUARE;
  let products: readonly [aa: number, ab: number, bb: number] = [0, 0, 0];
  for (let start = 0; start < range.length; start += BLOCK_ELEMENTS) {
    const end = Math.min(start + BLOCK_ELEMENTS, range.length);
    const [a, b, from = zeros.subarray(0, 2 * (end - start))] = read(start, end);
    products = addProductsBfloat16(from, a!, b!, start > 0);
    const isCoarse = (square: number, vector: Uint8Array) => square < least && Buffer.compare(vector, from) !== 0;
    if (isCoarse(products[0], a!) || isCoarse(products[2], b!)) return null;
  }
  const [aa, ab, bb] = products;
  return Number.isFinite(aa + bb) ? Float64Array.of(aa, ab, ab, bb) : null;
}

const sourcesOf = ({ base, models }: MergeSource): readonly Source[] => (base === null ? models : [base, ...models]);

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
      block.fill(0, bytes.length, bytes.length + 2 * VECTOR);
      return bytes;
    });
}
