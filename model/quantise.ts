/**
 * Matrices in 4 and 8 bits, in host memory. NF4 with double quantisation is QLoRA's (arXiv 2305.14314), with the tables, the
 * rounding and the order of bits of bitsandbytes; int8 has one scale a row, as LLM.int8 (arXiv 2208.07339) without outliers.
 * docs/quantisation.md describes both. Imports no TensorFlow.
 */

/** Values that share an absmax; absmaxes that share one of their own. */
export const BLOCK = 64;
export const NESTED_BLOCK = 256;

/** Quantiles of a normal distribution scaled to [-1, 1], with an exact zero: appendix E of QLoRA. */
export const NF4 = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/**
 * The 8-bit dynamic map of arXiv 1511.04561 as bitsandbytes has it: in the decade 10^(i-7)..10^(i-6) the middles of 2^i equal
 * parts, with both signs, and 0 and 1. Ascending, every step rounded to float32.
 */
export const DYNAMIC_MAP = dynamicMap();

function dynamicMap(): Float32Array {
  const { fround } = Math;
  const values = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const parts = 2 ** decade;
    const step = fround((1 - fround(0.1)) / parts);
    const bound = (k: number) => fround(2 * k < parts ? fround(0.1) + step * k : 1 - step * (parts - k));
    for (let k = 0; k < parts; k++) {
      const middle = fround(fround(bound(k) + bound(k + 1)) / 2);
      const value = fround(fround(10 ** (decade - 6)) * middle);
      values.push(value, -value);
    }
  }
  return Float32Array.from(values).sort();
}

/** A matrix in NF4. Its n values are taken row after row, a multiple of 64 of them. */
export type Nf4 = {
  /** [n / 2]: two values a byte, the first in the high half. */
  readonly codes: Uint8Array;
  /** [n / 64]: places in the dynamic map. A block's absmax is map[code] * nestedAbsmax[block / 256] + offset. */
  readonly absmax: Uint8Array;
  /** [ceil(n / 64 / 256)] */
  readonly nestedAbsmax: Float32Array;
  /** Mean of the absmaxes. */
  readonly offset: number;
};

/** A matrix in int8: its values are codes * scale of the row, -127 <= codes <= 127. */
export type Int8 = { readonly codes: Int8Array; readonly scale: Float32Array };

/** A matrix in NF4 before its absmaxes, in float32, are quantised too. */
export type Nf4Blocks = { readonly codes: Uint8Array; readonly absmax: Float32Array };

export const quantiseNf4 = (values: Float32Array): Nf4 => quantiseAbsmax(nf4Blocks(values));

/** Of some or all blocks of a matrix: they have nothing to do with each other. */
export function nf4Blocks(values: Float32Array): Nf4Blocks {
  const absmax = new Float32Array(values.length / BLOCK);
  const codes = new Uint8Array(values.length / 2);
  for (let block = 0; block < absmax.length; block++) {
    const begin = block * BLOCK;
    const most = largest(values, begin, begin + BLOCK);
    absmax[block] = most;
    const inverse = Math.fround(1 / Math.max(most, SMALLEST));
    for (let i = begin; i < begin + BLOCK; i += 2) {
      codes[i / 2] = (nf4Code(values[i]! * inverse) << 4) | nf4Code(values[i + 1]! * inverse);
    }
  }
  return { codes, absmax };
}

const SMALLEST = Math.fround(1e-38);

/** The largest absolute value from begin to before end. */
function largest(values: Float32Array, begin: number, end: number): number {
  let most = 0;
  for (let i = begin; i < end; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

const NF4_BOUNDS = Float32Array.from({ length: 15 }, (_, i) => Math.fround(NF4[i]! + NF4[i + 1]!) / 2);

/**
 * Equal bins of [-1, 1], narrower than the smallest distance of two bounds: in each the code at its beginning, and the one
 * bound above which it is the next.
 */
const BINS = 64;
const binOf = (x: number): number => Math.trunc((x + 1) * (BINS / 2));
const [BIN_CODE, BIN_BOUND] = bins();

function bins(): [Uint8Array, Float32Array] {
  const codes = new Uint8Array(BINS + 1);
  const bounds = new Float32Array(BINS + 1).fill(Number.POSITIVE_INFINITY);
  NF4_BOUNDS.forEach((bound, code) => {
    const bin = binOf(bound);
    bounds[bin] = bound;
    codes.fill(code + 1, bin + 1);
  });
  return [codes, bounds];
}

/** The nearest of the 16 values to x in [-1, 1], the lower one of two as near. */
function nf4Code(x: number): number {
  const rounded = Math.max(-1, Math.min(1, Math.fround(x)));
  const bin = binOf(rounded);
  return rounded > BIN_BOUND[bin]! ? BIN_CODE[bin]! + 1 : BIN_CODE[bin]!;
}

/** Double quantisation. */
export function quantiseAbsmax({ codes: values, absmax }: Nf4Blocks): Nf4 {
  const offset = Math.fround(absmax.reduce((sum, value) => sum + value, 0) / absmax.length);
  const centred = absmax.map((value) => value - offset);
  const nestedAbsmax = new Float32Array(Math.ceil(centred.length / NESTED_BLOCK));
  const codes = new Uint8Array(centred.length);
  for (let block = 0; block < nestedAbsmax.length; block++) {
    const end = Math.min(centred.length, (block + 1) * NESTED_BLOCK);
    const most = largest(centred, block * NESTED_BLOCK, end);
    nestedAbsmax[block] = most;
    for (let i = block * NESTED_BLOCK; i < end; i++)
      codes[i] = dynamicCode(most === 0 ? 0 : Math.fround(centred[i]! / most));
  }
  return { codes: values, absmax: codes, nestedAbsmax, offset };
}

/** The place of the nearest value of the dynamic map, the lower one of two as near. */
function dynamicCode(x: number): number {
  let [low, high] = [0, DYNAMIC_MAP.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (DYNAMIC_MAP[middle]! <= x) low = middle;
    else high = middle - 1;
  }
  if (low === DYNAMIC_MAP.length - 1) return low;
  const below = Math.abs(Math.fround(x - DYNAMIC_MAP[low]!));
  return Math.abs(Math.fround(x - DYNAMIC_MAP[low + 1]!)) < below ? low + 1 : low;
}

/** Scales are absmax / 127; values are rounded to the nearest, halves to even. A row of zeros has scale 0. */
export function quantiseInt8(values: Float32Array, rows: number): Int8 {
  const columns = values.length / rows;
  const codes = new Int8Array(values.length);
  const scale = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const [begin, end] = [row * columns, (row + 1) * columns];
    const most = largest(values, begin, end);
    scale[row] = most / 127;
    const inverse = most === 0 ? 0 : Math.fround(127 / most);
    for (let i = begin; i < end; i++) codes[i] = roundToEven(Math.fround(values[i]! * inverse));
  }
  return { codes, scale };
}

/** |x| < 2^22: adding and taking away 1.5 * 2^52 rounds in float64 as IEEE 754 does. */
const roundToEven = (x: number): number => x + 6755399441055744 - 6755399441055744;

/** The values of an NF4 matrix, as bitsandbytes' float32 ones are: bit by bit. */
export function dequantiseNf4({ codes, absmax, nestedAbsmax, offset }: Nf4): Float32Array {
  const { fround } = Math;
  const values = new Float32Array(2 * codes.length);
  absmax.forEach((code, block) => {
    const most = fround(fround(DYNAMIC_MAP[code]! * nestedAbsmax[Math.floor(block / NESTED_BLOCK)]!) + offset);
    for (let byte = (block * BLOCK) / 2; byte < ((block + 1) * BLOCK) / 2; byte++) {
      values[2 * byte] = NF4[codes[byte]! >> 4]! * most;
      values[2 * byte + 1] = NF4[codes[byte]! & 15]! * most;
    }
  });
  return values;
}
