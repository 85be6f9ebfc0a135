// The five 8-bit floating-point formats as tables from code to float32 bits.

type Float8 = "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ";

const tables = new Map<Float8, Uint32Array>();

/** 256 float32 bit patterns. PyTorch's names: float8_e4m3fn, float8_e5m2, float8_e8m0fnu, float8_e4m3fnuz, float8_e5m2fnuz. */
export function float8Table(dtype: Float8): Uint32Array {
  let table = tables.get(dtype);
  if (!table) {
    const decode = DECODERS[dtype];
    table = new Uint32Array(Float32Array.from({ length: 256 }, (_, code) => decode(code)).buffer);
    tables.set(dtype, table);
  }
  return table;
}

/** E5M2 is IEEE 754's scheme; E4M3 has no infinity and one NaN a sign; FNUZ has neither infinity nor -0, whose code is its NaN. */
const DECODERS: Readonly<Record<Float8, (code: number) => number>> = {
  F8_E8M0: (code) => (code === 0xff ? Number.NaN : 2 ** (code - 127)),
  F8_E4M3: (code) => ((code & 0x7f) === 0x7f ? Number.NaN : minifloat(code, 3, 7)),
  F8_E4M3FNUZ: (code) => (code === 0x80 ? Number.NaN : minifloat(code, 3, 8)),
  F8_E5M2FNUZ: (code) => (code === 0x80 ? Number.NaN : minifloat(code, 2, 16)),
  F8_E5M2: (code) => {
    if ((code & 0x7f) < 0x7c) return minifloat(code, 2, 15);
    if ((code & 0x7f) > 0x7c) return Number.NaN;
    return code < 0x80 ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
  },
};

/** Sign, exponent, mantissa: (1 + m) 2^(e - bias), or m 2^(1 - bias) where e is 0. */
function minifloat(code: number, mantissaBits: number, bias: number): number {
  const sign = code < 0x80 ? 1 : -1;
  const exponent = (code & 0x7f) >> mantissaBits;
  const mantissa = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  return sign * (exponent === 0 ? mantissa * 2 ** (1 - bias) : (1 + mantissa) * 2 ** (exponent - bias));
}
