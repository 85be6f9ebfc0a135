// Memory that the SIMD kernels see, one a thread: typed arrays are cut from it, used for a part of a tensor, and given back.
import { readFileSync } from "node:fs";
import { compiledModule } from "../../config/paths.js";

const PAGE_BYTES = 65_536;
/** Kernels work on whole vectors: behind every array lie zeros up to the next multiple of this many elements. */
const VECTOR = 8;
/** The arena begins with the terms of a weighted sum: at most so many, of 16 bytes each. */
const MAX_TERMS = 256;
const FIRST = 16 * MAX_TERMS;

/** The functions of kernels.ts. */
interface Kernels {
  decodeBfloat16(source: number, count: number, target: number): number;
  holdsNonFinite(values: number, count: number): number;
  encodeBfloat16(source: number, count: number, target: number): void;
  dotOfDifferences(base: number, a: number, b: number, count: number): number;
  dot(a: number, b: number, count: number): number;
  weightedSum(terms: number, sources: number, count: number, target: number): void;
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

/** Gives back everything and makes room for `bytes`. Arrays of before are of no use any more. */
export function clearArena(bytes: number): void {
  if (memory === undefined) {
    memory = new WebAssembly.Memory({ initial: 1 });
    const module = new WebAssembly.Module(readFileSync(compiledModule("merge/simd/kernels.wasm")));
    kernels = new WebAssembly.Instance(module, { env: { memory } }).exports as Kernels;
  }
  const missing = FIRST + bytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  used = FIRST;
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
const padded = (count: number) => count + paddingOf(count);

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

/** Whether kernels can work on the array. */
const isInArena = (array: Float32Array) => array.buffer === memory?.buffer;

/**
 * Sum over i of (a_i - base_i)(b_i - base_i), base 0 where it is null, in float64. Arrays of the arena, and views of
 * them, go by SIMD, with the same bits.
 */
export function dotOfDifferences(base: Float32Array | null, a: Float32Array, b: Float32Array): number {
  const whole = a.length - (a.length % 4);
  let sum: number;
  if (isInArena(a) && isInArena(b) && (base === null || isInArena(base))) {
    sum =
      base === null
        ? kernels.dot(a.byteOffset, b.byteOffset, whole)
        : kernels.dotOfDifferences(base.byteOffset, a.byteOffset, b.byteOffset, whole);
  } else {
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let i = 0; i < whole; i += 4) {
      s0 += product(base, a, b, i);
      s1 += product(base, a, b, i + 1);
      s2 += product(base, a, b, i + 2);
      s3 += product(base, a, b, i + 3);
    }
    sum = s0 + s2 + (s1 + s3);
  }
  for (let i = whole; i < a.length; i++) sum += product(base, a, b, i);
  return sum;
}

function product(base: Float32Array | null, a: Float32Array, b: Float32Array, i: number): number {
  const origin = base === null ? 0 : base[i]!;
  return (a[i]! - origin) * (b[i]! - origin);
}

/**
 * out_i = sum over s of weights[s] sources[s]_i, in float64, rounded to float32 once. `out` is none of the sources.
 * Arrays of the arena, and views of them, go by SIMD, with the same bits.
 */
export function weightedSumInto(out: Float32Array, sources: readonly Float32Array[], weights: readonly number[]): void {
  let start = 0;
  if (sources.length <= MAX_TERMS && isInArena(out) && sources.every(isInArena)) {
    start = out.length - (out.length % VECTOR);
    const terms = new DataView(memory!.buffer, 0, FIRST);
    for (const [s, source] of sources.entries()) {
      terms.setFloat64(16 * s, weights[s]!, true);
      terms.setUint32(16 * s + 8, source.byteOffset, true);
    }
    kernels.weightedSum(0, sources.length, start, out.byteOffset);
  }
  for (let i = start; i < out.length; i++) {
    let sum = 0;
    for (let s = 0; s < sources.length; s++) sum += weights[s]! * sources[s]![i]!;
    out[i] = sum;
  }
}
