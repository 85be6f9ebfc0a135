// The commonest merges straight from the files' bytes: weighted sums of bfloat16 tensors that are stored as bfloat16, and the
// dot products that their weights come from. Blocks of the sources are read and used while they are in a core's cache.
import type { Files, Place } from "./evaluate.js";
import type { ProductsOf } from "./method.js";
import { METHODS } from "./methods.js";
import type { PartRange } from "./parts.js";
import type { MergeSource, Source, TensorSource } from "./plan.js";
import { allocateBytes, arenaBytes, clearArena, VECTOR } from "./simd/arena.js";
import { MAX_TERMS, productsBfloat16, weightedSumsBfloat16 } from "./simd/sums.js";

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
  const { blocks, read } = blockReader(files, range, sources, range.length);
  const into = allocateBytes(range.length, 2);
  const sum = weightedSumsBfloat16(into, blocks, weights);
  for (let start = 0; start < range.length; start += BLOCK_ELEMENTS) {
    if (!sum(start, read(start))) return null;
  }
  return into;
}

/**
 * The dot products of two bfloat16 tensors, or of their differences from a base, as a pass gives them. Null where it is not
 * two that are summed, where a value is not finite, and where float32 is too coarse for the squares.
 */
export function measureBfloat16(
  files: Files,
  range: PartRange,
  { base, models }: MergeSource,
  of: ProductsOf,
): Float64Array | null {
  const origin = of === "sources" ? null : base;
  const vectors = of === "sources" && base !== null ? [base, ...models] : models;
  const sources = origin === null ? vectors : [...vectors, origin];
  if (vectors.length !== 2 || !sources.every(isBfloat16)) return null;
  const { blocks, read } = blockReader(files, range, sources, BLOCK_ELEMENTS);
  // Differences from zeros are the vectors themselves.
  const [a, b, from = allocateBytes(BLOCK_ELEMENTS, 2).fill(0)] = blocks;
  const addBlock = productsBfloat16(from, a!, b!);
  const least = range.length * LEAST_SQUARE;
  let products: readonly [aa: number, ab: number, bb: number] = [0, 0, 0];
  for (let start = 0; start < range.length; start += BLOCK_ELEMENTS) {
    const count = read(start);
    products = addBlock(count);
    const isCoarse = (square: number, vector: Uint8Array) =>
      square < least && Buffer.compare(vector.subarray(0, 2 * count), from.subarray(0, 2 * count)) !== 0;
    if (isCoarse(products[0], a!) || isCoarse(products[2], b!)) return null;
  }
  const [aa, ab, bb] = products;
  return Number.isFinite(aa + bb) ? Float64Array.of(aa, ab, ab, bb) : null;
}

const sourcesOf = ({ base, models }: MergeSource): readonly Source[] => (base === null ? models : [base, ...models]);

const isBfloat16 = (source: Source): source is TensorSource =>
  source.kind === "tensor" && source.place.dtype === "BF16";

/**
 * Blocks of memory, one a source, and what fills them: with the elements of a part from `start` on, as many as there are, which
 * it returns. Clears the arena, in which there is room for `others` more elements then.
 */
function blockReader(
  files: Files,
  range: PartRange,
  sources: readonly TensorSource[],
  others: number,
): { readonly blocks: readonly Uint8Array[]; readonly read: (start: number) => number } {
  clearArena(sources.length * arenaBytes(BLOCK_ELEMENTS, 2) + arenaBytes(others, 2));
  const blocks = sources.map(() => allocateBytes(BLOCK_ELEMENTS, 2));
  const read = (start: number) => {
    const count = Math.min(BLOCK_ELEMENTS, range.length - start);
    for (let s = 0; s < blocks.length; s++) {
      const { file, position } = sources[s]!.place;
      const block = blocks[s]!;
      const isWhole = count === BLOCK_ELEMENTS;
      files.read(file, position + 2 * (range.start + start), isWhole ? block : block.subarray(0, 2 * count));
      // Kernels look at whole vectors.
      if (!isWhole) block.fill(0, 2 * count, 2 * (count + VECTOR));
    }
    return count;
  };
  return { blocks, read };
}
