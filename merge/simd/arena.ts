// Memory that the SIMD kernels see, one a thread: typed arrays are cut from it, used for a part of a tensor, and given back.
import { readFileSync } from "node:fs";
import { compiledModule } from "../../config/paths.js";

const PAGE_BYTES = 65_536;
/** Kernels work on whole vectors: behind every array lie zeros up to the next multiple of this many elements. */
export const VECTOR = 16;
/** The arena begins with bytes for arguments and results of kernels. */
const FIRST = 4096;

/** The functions of kernels.ts and kernels-bfloat16.ts. */
interface Kernels {
  decodeBfloat16(source: number, count: number, target: number): number;
  holdsNonFinite(values: number, count: number): number;
  encodeBfloat16(source: number, count: number, target: number): void;
  dotOfDifferences(base: number, a: number, b: number, count: number): number;
  dot(a: number, b: number, count: number): number;
  productsOfDifferences(base: number, a: number, b: number, count: number, target: number): void;
  weightedSum(terms: number, sources: number, count: number, target: number): void;
  addProductsBfloat16(base: number, a: number, b: number, count: number, sums: number): void;
  weightedSumBfloat16(terms: number, sources: number, count: number, target: number): number;
  taskVector(base: number, model: number, count: number, target: number): void;
  countUpper(bits: number, count: number, counts: number): void;
  countLower(bits: number, count: number, first: number, counts: number): void;
  addCounts(counts: number, count: number, sums: number): void;
  countMagnitude(bits: number, count: number, sought: number): number;
  keepLarger(bits: number, count: number, above: number): void;
  addVotes(
    values: number,
    count: number,
    scale: number,
    weight: number,
    sums: number,
    sizes: number,
    weights: number,
    balances: number,
  ): void;
  elect(
    base: number,
    majority: number,
    sums: number,
    sizes: number,
    weights: number,
    balances: number,
    count: number,
    factor: number,
    normalize: boolean,
    tiny: number,
    target: number,
  ): void;
}

/** What is used here of a global that TypeScript knows only together with a browser's. */
declare const WebAssembly: {
  Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer; grow(pages: number): number };
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: object };
};

let memory: InstanceType<typeof WebAssembly.Memory> | undefined;
let kernels: Kernels;
let used = FIRST;

/** Bytes behind the terms that outlive a part: sums over the parts of a tensor. */
let held = 0;

/** So many integers, from 0, that are kept until the next call, whatever is given back. What was taken before is of no use. */
export function holdCounts(count: number): Uint32Array {
  held = 4 * Math.ceil(count / VECTOR) * VECTOR;
  clearArena(0);
  return new Uint32Array(memory!.buffer, FIRST, count).fill(0);
}

/** Counts that are held, where the memory is now: it moves when it grows. */
export const heldCounts = (count: number): Uint32Array => new Uint32Array(memory!.buffer, FIRST, count);

/** Gives back everything and makes room for `bytes`, and for methods' own use. Arrays of before are of no use any more. */
export function clearArena(bytes: number): void {
  if (memory === undefined) {
    memory = new WebAssembly.Memory({ initial: 1 });
    const module = new WebAssembly.Module(readFileSync(compiledModule("merge/simd/kernels.wasm")));
    kernels = new WebAssembly.Instance(module, { env: { memory } }).exports as Kernels;
  }
  // Counts of one part are as many as those that are held.
  const missing = FIRST + 2 * held + SCRATCH_BYTES + bytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  used = FIRST + held;
}

/** Bytes that an array of so many elements of `size` bytes takes in the arena. */
export const arenaBytes = (elements: number, size: number): number => Math.ceil(elements / VECTOR + 1) * VECTOR * size;

/** An array of `count` elements whose content is arbitrary, but for the zeros behind it. */
export const allocateFloats = (count: number): Float32Array => {
  const address = allocate(count, 4);
  new Float32Array(memory!.buffer, address + 4 * count, paddingOf(count)).fill(0);
  return new Float32Array(memory!.buffer, address, count);
};

/** As `allocateFloats`, of `count` elements of `size` bytes each. */
export const allocateBytes = (count: number, size: number): Uint8Array => {
  const address = allocate(count, size);
  new Uint8Array(memory!.buffer, address + size * count, size * paddingOf(count)).fill(0);
  return new Uint8Array(memory!.buffer, address, size * count);
};

function allocate(count: number, size: number): number {
  const address = used;
  used += arenaBytes(count, size);
  if (used > (memory?.buffer.byteLength ?? 0)) {
    throw new RangeError(`arena of ${memory?.buffer.byteLength} bytes, ${used} are needed: clear it with more room`);
  }
  return address;
}

const paddingOf = (count: number) => (VECTOR - (count % VECTOR)) % VECTOR;
/** Elements of an array of the arena with the zeros behind it. */
export const padded = (count: number): number => count + paddingOf(count);

/** bfloat16 bytes of the arena as float32 in the arena. Returns whether all values are finite. */
export function decodeBfloat16(bytes: Uint8Array, into: Float32Array): boolean {
  return kernels.decodeBfloat16(bytes.byteOffset, padded(into.length), into.byteOffset) === 0;
}

/** Finite float32 values of the arena as bfloat16 bytes in the arena, to nearest even. */
export function encodeBfloat16(values: Float32Array, into: Uint8Array): void {
  kernels.encodeBfloat16(values.byteOffset, padded(values.length), into.byteOffset);
}

/** Whether all values of an array of the arena are finite. */
export function isFiniteArray(values: Float32Array): boolean {
  return kernels.holdsNonFinite(values.byteOffset, padded(values.length)) === 0;
}

/**
 * The kernels, where all arrays lie in the arena. They do whole vectors: what is left, and all where an array lies
 * elsewhere, is for a plain loop that gives the same bits.
 */
export function kernelsFor(...arrays: readonly ArrayBufferView[]): Kernels | undefined {
  const buffer = memory?.buffer;
  return buffer !== undefined && arrays.every((array) => array.buffer === buffer) ? kernels : undefined;
}

/** The bytes at address 0, where kernels find long arguments and leave long results. */
export const firstBytes = (): DataView => new DataView(memory!.buffer, 0, FIRST);

/** Room that every part has in the arena beside its sources, for what methods need on the way. */
const SCRATCH_BYTES = 2 ** 20;

/** Zeros for a method's own use while it looks at a part: in the arena while there is room, elsewhere after that. */
export const scratchFloats = (count: number): Float32Array =>
  hasRoom(4 * count) ? allocateFloats(count).fill(0) : new Float32Array(count);

/** As `scratchFloats`, in float64. */
export const scratchDoubles = (count: number): Float64Array =>
  hasRoom(8 * count) ? new Float64Array(memory!.buffer, allocate(count, 8), count).fill(0) : new Float64Array(count);

/** As `scratchFloats`, as integers from 0. */
export const scratchCounts = (count: number): Uint32Array =>
  hasRoom(4 * count) ? new Uint32Array(memory!.buffer, allocate(count, 4), count).fill(0) : new Uint32Array(count);

const hasRoom = (bytes: number) => used + bytes + 1024 <= (memory?.buffer.byteLength ?? 0);
