// float32 and float64 as elements of any float dtype.
import { BITS, type Dtype } from "./dtypes.js";
import { bytesOf, fillElements } from "./element-views.js";
import { SafetensorsError } from "./error.js";
import { encodeE8m0, encodeMinifloats } from "./minifloat.js";

/** The float dtypes that models are stored in whole, without scales beside them. */
export type FloatDtype = "F64" | "F32" | "F16" | "BF16";

export const isFloatDtype = (dtype: Dtype): dtype is FloatDtype => ["F64", "F32", "F16", "BF16"].includes(dtype);

/** Every dtype that `fromFloat32` and `fromFloat64` write. */
type EncodedDtype = FloatDtype | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" | "F4";

const ENCODED: ReadonlySet<Dtype> = new Set<EncodedDtype>([
  ...(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4"] as const),
]);
const isEncoded = (dtype: Dtype): dtype is EncodedDtype => ENCODED.has(dtype);

/**
 * The values as little-endian bytes, rounded to nearest, ties to even. F32 is a view of `values`, not a copy.
 * What is too large for the dtype becomes, as in PyTorch 2.15: infinity (F16, BF16, F8_E5M2), the largest number (F8_E4M3,
 * F4; infinity too) or NaN (F8_E4M3FNUZ, F8_E5M2FNUZ, F8_E8M0). F8_E8M0 drops signs, and its halves go up.
 * NaN: BF16 keeps sign and upper payload and is quiet; F16, F8_E5M2 and F8_E4M3 keep the sign alone; the others have one.
 * With `into`, which must have the number of bytes and not overlap `values`, they are written there, without other memory
 * where `into` is aligned to the element (BF16 to 4 bytes), and `into` is returned.
 * @throws SafetensorsError for a dtype that is no float of the above, or an odd number of F4; RangeError for a NaN in F4 and
 * for `into` of another length.
 */
export function fromFloat32(values: Float32Array, dtype: Dtype, into?: Uint8Array): Uint8Array {
  const known = checkDtype(values.length, dtype, "float32");
  if (into === undefined && known === "F32") return bytesOf(values);
  const bytes = output(values.length, known, into);
  encode(values, known, bytes);
  return bytes;
}

/**
 * As `fromFloat32`, from float64 and rounded once: PyTorch rounds to float32 first, and then again, which differs where the
 * first makes a tie. F64 is a view of `values`, not a copy.
 */
export function fromFloat64(values: Float64Array, dtype: Dtype, into?: Uint8Array): Uint8Array {
  const known = checkDtype(values.length, dtype, "float64");
  if (into === undefined && known === "F64") return bytesOf(values);
  const bytes = output(values.length, known, into);
  if (known === "F64") bytes.set(bytesOf(values));
  else if (known === "F32") fillElements(Float32Array, bytes, (elements) => elements.set(values));
  else {
    const part = new Float32Array(Math.min(values.length, PART));
    for (let at = 0; at < values.length; at += PART) {
      const size = Math.min(PART, values.length - at);
      roundToOdd(values.subarray(at, at + size), part);
      encode(part.subarray(0, size), known, bytes.subarray((at * BITS[known]) / 8, ((at + size) * BITS[known]) / 8));
    }
  }
  return bytes;
}

/** Elements of a part, even for F4: small enough for the cache. */
const PART = 4096;

function checkDtype(count: number, dtype: Dtype, float: string): EncodedDtype {
  if (dtype === "F6_E2M3" || dtype === "F6_E3M2") {
    const problem = `${float} cannot be written as ${dtype}: how 6-bit elements are packed into bytes is not agreed on`;
    throw new SafetensorsError(undefined, problem);
  }
  if (!isEncoded(dtype)) {
    throw new SafetensorsError(
      undefined,
      `${float} cannot be written as ${dtype}, expected one of ${[...ENCODED].join(", ")}`,
    );
  }
  if ((count * BITS[dtype]) % 8 !== 0) {
    throw new SafetensorsError(
      undefined,
      `${count} values of ${dtype} are no whole number of bytes, expected an even number`,
    );
  }
  return dtype;
}

function output(count: number, dtype: EncodedDtype, into: Uint8Array | undefined): Uint8Array {
  const needed = (count * BITS[dtype]) / 8;
  if (into === undefined) return new Uint8Array(needed);
  if (into.length !== needed) throw new RangeError(`"into" has length ${into.length}, expected ${needed}`);
  return into;
}

function encode(values: Float32Array, dtype: EncodedDtype, bytes: Uint8Array): void {
  switch (dtype) {
    case "F64":
      fillElements(Float64Array, bytes, (elements) => elements.set(values));
      break;
    case "F32":
      bytes.set(bytesOf(values));
      break;
    case "BF16":
      float32ToBfloat16(values, bytes);
      break;
    case "F16":
      fillElements(Uint16Array, bytes, (halves) => encodeMinifloats(values, dtype, halves));
      break;
    case "F8_E8M0":
      encodeE8m0(values, bytes);
      break;
    case "F4":
      encodePairs(values, bytes);
      break;
    default:
      encodeMinifloats(values, dtype, bytes);
  }
}

/** Two are written at a time: half the stores. */
function float32ToBfloat16(values: Float32Array, bytes: Uint8Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const inPairs = bits.length & ~1;
  fillElements(Uint32Array, bytes.subarray(0, 2 * inPairs), (pairs) => {
    for (let i = 0; i < pairs.length; i++) {
      pairs[i] = (roundedToBfloat16(bits[2 * i]!) >>> 16) | (roundedToBfloat16(bits[2 * i + 1]!) & 0xffff0000);
    }
  });
  if (inPairs < bits.length) {
    const last = roundedToBfloat16(bits[inPairs]!);
    bytes[2 * inPairs] = last >>> 16;
    bytes[2 * inPairs + 1] = last >>> 24;
  }
}

/** In the upper half; the lower half is of no meaning. */
function roundedToBfloat16(x: number): number {
  const isNotANumber = (x & 0x7fffffff) > 0x7f800000;
  // Adding just under half of the last kept bit carries into it exactly when the rest is above half, or half and the bit odd.
  return isNotANumber ? x | 0x400000 : x + 0x7fff + ((x >>> 16) & 1);
}

/** F4: two to a byte, the first in the low four bits. */
function encodePairs(values: Float32Array, bytes: Uint8Array): void {
  const codes = new Uint8Array(Math.min(values.length, PART));
  for (let at = 0; at < values.length; at += PART) {
    const size = Math.min(PART, values.length - at);
    encodeMinifloats(values.subarray(at, at + size), "F4", codes);
    for (let i = 0; i < size; i += 2) bytes[(at + i) / 2] = codes[i]! | (codes[i + 1]! << 4);
  }
}

/**
 * Where float32 is not exact, of its two neighbours the one whose last bit is set: it lies on the same side of every tie of a
 * narrower format as the value itself, so that rounding it again is rounding once.
 */
function roundToOdd(values: Float64Array, into: Float32Array): void {
  const bits = new Uint32Array(into.buffer, into.byteOffset, into.length);
  into.set(values);
  for (let i = 0; i < values.length; i++) {
    const [exact, nearest] = [Math.abs(values[i]!), Math.abs(into[i]!)];
    if ((bits[i]! & 1) === 0 && exact !== nearest && !Number.isNaN(exact)) bits[i]! += exact > nearest ? 1 : -1;
  }
}
