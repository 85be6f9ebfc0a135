// The k elements of largest magnitude of a tensor that is never held whole, exactly: by counting, in up to three readings.
import type { Known, Part, Pass, Settings } from "./method.js";
import { kernelsFor, scratchCounts, scratchFloats } from "./simd/arena.js";

/** Elements that are looked at together: their scores stay in a core's nearest cache. */
export const BLOCK_ELEMENTS = 2048;

/** The bits of a non-negative float32 order as its value does: the upper 15, without the sign, then the lower 16. */
const MAGNITUDE = 0x7fffffff;
const UPPER_BINS = 2 ** 15;
const LOWER_BINS = 2 ** 16;

/** What elements are selected by. Scores are float32; their signs do not count. */
export interface Selection<S extends Settings> {
  /** False where the settings select all elements or none. */
  isNeeded(settings: S): boolean;
  /** How many scores an element has: one for each model, or one for all. */
  sources(settings: S): number;
  /** Gives a function that writes the scores of elements `start` to `start + count` of the part. Called once per part and source. */
  scorer(part: Part, source: number, settings: S): (start: number, count: number, scores: Float32Array) => void;
  /** How many elements of the largest scores are above each cut, as many cuts for each source; of `positives` the score is not 0. */
  ranks(source: number, elements: number, positives: number, settings: S): readonly number[];
}

/** A line through a tensor's scores: k elements are above it. */
export interface Cut {
  /** The k-th largest score; `MAGNITUDE`, which is no number, where k is 0. */
  readonly bits: number;
  /** All elements of that very score are above in parts before this one, none are in parts behind it, and in it the first `keep`. */
  readonly part: number;
  readonly keep: number;
}

/** The readings that find the cuts of a selection: the first passes of a method, see `cutsOf`. */
export function selectionPasses<S extends Settings>(selection: Selection<S>): readonly Pass<S>[] {
  return [
    {
      isNeeded: (_known, settings) => selection.isNeeded(settings),
      counts: (settings) => selection.sources(settings) * UPPER_BINS,
      measure: (part, settings) => countUpper(selection, part, settings),
      conclude: (sums, settings) => findBins(selection, sums, settings),
    },
    {
      isNeeded: ([bins]) => bins!.length > 0,
      counts: (_settings, [bins]) => (bins!.length / 2) * LOWER_BINS,
      measure: (part, settings, [bins]) => countLower(selection, part, settings, bins!),
      conclude: (sums, _settings, [bins]) => findBits(sums, bins!),
    },
    {
      // Only where a cut goes through elements of equal scores it matters in which part they are.
      isNeeded: ([, found]) => found!.some((_, c) => c % 3 === 0 && found![c + 1]! < found![c + 2]!),
      measure: (part, settings, [, found]) => countEqual(selection, part, settings, found!),
      conclude: (sums, _settings, [, found]) => findParts(sums, found!),
    },
  ];
}

/** The cuts of the first source, then those of the second, and so on. */
export function cutsOf([, found, parts]: Known): Cut[] {
  return Array.from({ length: found!.length / 3 }, (_, c) => ({
    bits: found![3 * c]!,
    part: parts?.[2 * c] ?? Number.POSITIVE_INFINITY,
    keep: parts?.[2 * c + 1] ?? 0,
  }));
}

/** The score that a cut goes through, as a number. */
export const scoreOf = ({ bits }: Cut): number => new Float32Array(Int32Array.of(bits).buffer)[0]!;

/** Calls `look` with the bits of the scores of each block, in order; the loops over elements are in functions of their own. */
function forBlocks<S extends Settings>(
  selection: Selection<S>,
  part: Part,
  source: number,
  settings: S,
  look: (bits: Int32Array, count: number) => void,
): void {
  const scores = scratchFloats(BLOCK_ELEMENTS);
  const bits = new Int32Array(scores.buffer, scores.byteOffset, scores.length);
  const score = selection.scorer(part, source, settings);
  for (let start = 0; start < part.length; start += BLOCK_ELEMENTS) {
    const count = Math.min(BLOCK_ELEMENTS, part.length - start);
    score(start, count, scores);
    look(bits, count);
  }
}

/** How many elements of the part have which upper bits: bins for each source. */
function countUpper<S extends Settings>(selection: Selection<S>, part: Part, settings: S): Uint32Array {
  const sources = selection.sources(settings);
  const counts = scratchCounts(sources * UPPER_BINS);
  for (let source = 0; source < sources; source++) {
    const bins = counts.subarray(source * UPPER_BINS, (source + 1) * UPPER_BINS);
    forBlocks(selection, part, source, settings, (bits, count) => addUpper(bins, bits, count));
  }
  return counts;
}

function addUpper(bins: Uint32Array, bits: Int32Array, count: number): void {
  const kernels = kernelsFor(bins, bits);
  if (kernels) kernels.countUpper(bits.byteOffset, count, bins.byteOffset);
  else for (let i = 0; i < count; i++) bins[(bits[i]! & MAGNITUDE) >>> 16]!++;
}

/** For each cut: the upper bits of its score, and how many elements of these upper bits are above it. */
function findBins<S extends Settings>(selection: Selection<S>, counts: Float64Array, settings: S): number[] {
  const found: number[] = [];
  for (let source = 0; source < selection.sources(settings); source++) {
    const bins = counts.subarray(source * UPPER_BINS, (source + 1) * UPPER_BINS);
    const elements = bins.reduce((sum, count) => sum + count, 0);
    // Scores that differ from 0 by less than 2^-133 count as 0.
    for (const rank of selection.ranks(source, elements, elements - bins[0]!, settings))
      found.push(...descend(bins, rank));
  }
  return found;
}

/** From the last bin down: that in which the element of this rank is, from 1, and its rank there. No elements: above all bins. */
function descend(bins: Float64Array, rank: number): [bin: number, rank: number] {
  let above = 0;
  for (let bin = bins.length - 1; bin >= 0 && rank > 0; bin--) {
    if (above + bins[bin]! >= rank) return [bin, rank - above];
    above += bins[bin]!;
  }
  return [bins.length, 0];
}

/** How many elements of the part that have the upper bits of a cut have which lower bits: bins for each cut. */
function countLower<S extends Settings>(
  selection: Selection<S>,
  part: Part,
  settings: S,
  found: readonly number[],
): Uint32Array {
  const counts = scratchCounts((found.length / 2) * LOWER_BINS);
  forSources(selection, settings, found.length / 2, (source, cuts) => {
    const sought = cuts
      .filter((cut) => found[2 * cut]! < UPPER_BINS)
      .map((cut) => ({
        cut,
        first: found[2 * cut]! * LOWER_BINS,
        bins: counts.subarray(cut * LOWER_BINS, (cut + 1) * LOWER_BINS),
      }));
    if (sought.length === 0) return;
    forBlocks(selection, part, source, settings, (bits, count) => {
      for (const { bins, first } of sought) addLower(bins, bits, count, first);
    });
  });
  return counts;
}

/** Calls `look` with each source and the numbers of its cuts. */
function forSources<S extends Settings>(
  selection: Selection<S>,
  settings: S,
  cuts: number,
  look: (source: number, cuts: readonly number[]) => void,
): void {
  const sources = selection.sources(settings);
  const each = cuts / sources;
  for (let source = 0; source < sources; source++) {
    look(
      source,
      Array.from({ length: each }, (_, c) => source * each + c),
    );
  }
}

/** Counts the magnitudes from `first` on, each in a bin of its own. */
function addLower(bins: Uint32Array, bits: Int32Array, count: number, first: number): void {
  const kernels = kernelsFor(bins, bits);
  if (kernels) kernels.countLower(bits.byteOffset, count, first, bins.byteOffset);
  for (let i = 0; kernels === undefined && i < count; i++) {
    const bin = ((bits[i]! & MAGNITUDE) - first) >>> 0;
    if (bin < LOWER_BINS) bins[bin]!++;
  }
}

/** For each cut: its score's bits, how many elements of that very score are above it, and how many there are. */
function findBits(counts: Float64Array, found: readonly number[]): number[] {
  return Array.from({ length: found.length / 2 }, (_, cut) => {
    const [upper, rank] = [found[2 * cut]!, found[2 * cut + 1]!];
    if (rank === 0) return [MAGNITUDE, 0, 0];
    const bins = counts.subarray(cut * LOWER_BINS, (cut + 1) * LOWER_BINS);
    const [lower, rest] = descend(bins, rank);
    return [upper * LOWER_BINS + lower, rest, bins[lower]!];
  }).flat();
}

/** How many elements of the part have exactly the score of each cut: counts[cut * parts + part]. */
function countEqual<S extends Settings>(
  selection: Selection<S>,
  part: Part,
  settings: S,
  found: readonly number[],
): Float64Array {
  const counts = new Float64Array((found.length / 3) * part.parts);
  forSources(selection, settings, found.length / 3, (source, cuts) => {
    // A cut between elements that differ goes through no part.
    const split = cuts.filter((cut) => found[3 * cut + 1]! < found[3 * cut + 2]!);
    if (split.length === 0) return;
    forBlocks(selection, part, source, settings, (bits, count) => {
      for (const cut of split) counts[cut * part.parts + part.index]! += countMagnitude(bits, count, found[3 * cut]!);
    });
  });
  return counts;
}

function countMagnitude(bits: Int32Array, count: number, sought: number): number {
  const kernels = kernelsFor(bits);
  const whole = kernels === undefined ? 0 : count - (count % 4);
  let equal = kernels === undefined ? 0 : kernels.countMagnitude(bits.byteOffset, whole, sought);
  for (let i = whole; i < count; i++) if ((bits[i]! & MAGNITUDE) === sought) equal++;
  return equal;
}

/** For each cut: the part that it goes through, and how many elements of its score are above it there. */
function findParts(counts: Float64Array, found: readonly number[]): number[] {
  const cuts = found.length / 3;
  const parts = counts.length / cuts;
  return Array.from({ length: cuts }, (_, cut) => {
    const [rank, equal] = [found[3 * cut + 1]!, found[3 * cut + 2]!];
    if (rank === equal) return [Number.POSITIVE_INFINITY, 0];
    let rest = rank;
    let part = 0;
    while (part < parts - 1 && rest > counts[cut * parts + part]!) rest -= counts[cut * parts + part++]!;
    return [part, rest];
  }).flat();
}

/** How far a cut has gone through a part: what is larger than `above` is above it, and the next `left` that equal `above`. */
export interface Cutting {
  readonly above: number;
  left: number;
}

/** Starts at the first element of a part. Zeros are never above a cut: to keep them would change nothing. */
export function startCut({ bits, part, keep }: Cut, index: number): Cutting {
  if (bits === MAGNITUDE) return { above: MAGNITUDE, left: 0 };
  if (index < part) return { above: Math.max(0, bits - 1), left: 0 };
  return { above: bits, left: index === part && bits > 0 ? keep : 0 };
}

/**
 * Sets to zero what is not above the cut, of the next values of a part. Without branches, which would be mispredicted: the
 * difference is negative, its sign all ones, where a value is kept.
 */
export function keepAbove(bits: Int32Array, count: number, cutting: Cutting): void {
  if (cutting.left > 0) keepWithEqual(bits, count, cutting);
  else keepLarger(bits, count, cutting.above);
}

function keepLarger(bits: Int32Array, count: number, above: number): void {
  const kernels = kernelsFor(bits);
  const whole = kernels === undefined ? 0 : count - (count % 4);
  kernels?.keepLarger(bits.byteOffset, whole, above);
  for (let i = whole; i < count; i++) bits[i] = bits[i]! & ((above - (bits[i]! & MAGNITUDE)) >> 31);
}

function keepWithEqual(bits: Int32Array, count: number, cutting: Cutting): void {
  for (let i = 0; i < count; i++) {
    const magnitude = bits[i]! & MAGNITUDE;
    if (magnitude > cutting.above) continue;
    if (magnitude === cutting.above && cutting.left > 0) cutting.left--;
    else bits[i] = 0;
  }
}

/** Sets to zero what is above the cut. */
export function dropAbove(bits: Int32Array, count: number, cutting: Cutting): void {
  const { above, left } = cutting;
  if (left > 0) dropWithEqual(bits, count, cutting);
  else if (above < MAGNITUDE)
    for (let i = 0; i < count; i++) bits[i] = bits[i]! & ~((above - (bits[i]! & MAGNITUDE)) >> 31);
}

function dropWithEqual(bits: Int32Array, count: number, cutting: Cutting): void {
  for (let i = 0; i < count; i++) {
    const magnitude = bits[i]! & MAGNITUDE;
    if (magnitude < cutting.above) continue;
    if (magnitude > cutting.above) bits[i] = 0;
    else if (cutting.left > 0) {
      cutting.left--;
      bits[i] = 0;
    }
  }
}
