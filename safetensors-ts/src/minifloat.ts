// Floating-point formats of 4, 8 and 16 bits: sign, exponent, mantissa; and what each does with what it cannot hold.

/** One format. Codes here are without the sign, which is the highest of `bits`. */
interface Minifloat {
  readonly bits: 4 | 8 | 16;
  readonly mantissaBits: number;
  readonly bias: number;
  /** The largest finite number. */
  readonly largest: number;
  /** What a number becomes that would be rounded above `largest`, and infinity: as PyTorch 2.15 casts. */
  readonly overflow: number;
  /** Undefined where the format has no NaN. */
  readonly nan: number | undefined;
  /** Undefined where the format has no infinity. */
  readonly infinity: number | undefined;
  /** In the FNUZ formats the code of -0 is the only NaN. */
  readonly hasNegativeZero: boolean;
}

const IEEE = { hasNegativeZero: true } as const;
const FNUZ = { largest: 0x7f, overflow: 0x80, nan: 0x80, infinity: undefined, hasNegativeZero: false } as const;

/** By the names of the format; PyTorch's are float16, float8_e4m3fn, _e5m2, _e4m3fnuz, _e5m2fnuz and float4_e2m1fn. */
export const MINIFLOATS = {
  F16: {
    bits: 16,
    mantissaBits: 10,
    bias: 15,
    largest: 0x7bff,
    overflow: 0x7c00,
    nan: 0x7e00,
    infinity: 0x7c00,
    ...IEEE,
  },
  F8_E5M2: { bits: 8, mantissaBits: 2, bias: 15, largest: 0x7b, overflow: 0x7c, nan: 0x7f, infinity: 0x7c, ...IEEE },
  F8_E4M3: {
    bits: 8,
    mantissaBits: 3,
    bias: 7,
    largest: 0x7e,
    overflow: 0x7e,
    nan: 0x7f,
    infinity: undefined,
    ...IEEE,
  },
  F8_E4M3FNUZ: { bits: 8, mantissaBits: 3, bias: 8, ...FNUZ },
  F8_E5M2FNUZ: { bits: 8, mantissaBits: 2, bias: 16, ...FNUZ },
  F4: { bits: 4, mantissaBits: 1, bias: 1, largest: 7, overflow: 7, nan: undefined, infinity: undefined, ...IEEE },
} as const satisfies Readonly<Record<string, Minifloat>>;

export type MinifloatDtype = keyof typeof MINIFLOATS;

const tables = new Map<MinifloatDtype, Uint32Array>();

/** The bits of a float32 for each code of the format, signs included. */
export function minifloatTable(dtype: MinifloatDtype): Uint32Array {
  let table = tables.get(dtype);
  if (!table) {
    const format: Minifloat = MINIFLOATS[dtype];
    table = Uint32Array.from({ length: 1 << format.bits }, (_, code) => float32Bits(code, format));
    tables.set(dtype, table);
  }
  return table;
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** (1 + m) 2^(e - bias), or m 2^(1 - bias) where the exponent e is 0. A NaN keeps its sign and the bits of its mantissa. */
function float32Bits(
  code: number,
  { bits, mantissaBits, bias, largest, infinity, hasNegativeZero }: Minifloat,
): number {
  const signBit = 1 << (bits - 1);
  const magnitude = code & (signBit - 1);
  const mantissa = magnitude & ((1 << mantissaBits) - 1);
  if (!hasNegativeZero && code === signBit) return 0x7fc00000;
  const sign = code >= signBit ? 0x80000000 : 0;
  if (magnitude > largest) {
    // All ones where the format has no infinity: there the mantissa tells nothing.
    return (sign | 0x7f800000 | (infinity === undefined ? 0x400000 : mantissa << (23 - mantissaBits))) >>> 0;
  }
  const exponent = magnitude >> mantissaBits;
  const fraction = mantissa / (1 << mantissaBits);
  scratch[0] = exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  return (sign | scratchBits[0]!) >>> 0;
}

/** Adding and taking away 2^52 leaves no room for a fraction: the sum is rounded to a whole number, ties to even. */
const ROUNDER = 2 ** 52;

/**
 * Writes the code of each value, rounded to nearest, ties to even; a NaN keeps its sign only.
 * Throws RangeError for a NaN where the format has none.
 */
export function encodeMinifloats(values: Float32Array, dtype: MinifloatDtype, codes: Uint8Array | Uint16Array): void {
  const { bits, mantissaBits, bias, largest, overflow, nan, hasNegativeZero }: Minifloat = MINIFLOATS[dtype];
  const float32 = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const signBit = 1 << (bits - 1);
  const dropped = 23 - mantissaBits;
  const rebias = (127 - bias) << 23;
  const smallestNormal = (128 - bias) << 23;
  const subnormalUnits = 2 ** (bias - 1 + mantissaBits);
  const justUnderHalf = (1 << (dropped - 1)) - 1;
  for (let i = 0; i < float32.length; i++) {
    const x = float32[i]!;
    const magnitude = x & 0x7fffffff;
    let code: number;
    if (magnitude > 0x7f800000) {
      if (nan === undefined) throw new RangeError(`NaN cannot be written as ${dtype}, which has none`);
      code = nan;
    } else {
      if (magnitude < smallestNormal) code = (Math.abs(values[i]!) * subnormalUnits + ROUNDER - ROUNDER) | 0;
      // Adding just under half of the last kept bit carries into it exactly when the rest is above half, or half and the bit odd.
      else code = (magnitude - rebias + justUnderHalf + ((magnitude >>> dropped) & 1)) >>> dropped;
      if (code > largest) code = overflow;
    }
    codes[i] = code === 0 && !hasNegativeZero ? 0 : ((x >>> (32 - bits)) & signBit) | code;
  }
}

/** F8_E8M0 is 2^(code - 127), the scale of the OCP microscaling formats: no sign, no zero; 255 is NaN. Bits of a float32. */
export const E8M0_TABLE: Uint32Array = Uint32Array.from({ length: 256 }, (_, code) =>
  code === 0xff ? 0x7fc00000 : code === 0 ? 0x400000 : code << 23,
);

/**
 * As PyTorch casts: the sign is dropped, halves go up, 0 and what is smaller than 2^-127 become 2^-127, what would be
 * 2^128 and infinity become NaN. Between 2^-127 and 2^-126 everything goes up.
 */
export function encodeE8m0(values: Float32Array, codes: Uint8Array): void {
  const float32 = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < float32.length; i++) {
    const exponent = (float32[i]! >>> 23) & 0xff;
    const mantissa = float32[i]! & 0x7fffff;
    const isUp = exponent === 0 ? mantissa > 0x400000 : mantissa >= 0x400000;
    codes[i] = exponent === 0xff ? 0xff : exponent + (isUp ? 1 : 0);
  }
}
