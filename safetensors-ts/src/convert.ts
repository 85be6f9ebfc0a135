// Elements to float32 and back. Typed arrays have the byte order of the machine: little endian wherever Node and browsers run.
import { BITS, type Dtype } from "./dtypes.js";
import { SafetensorsError } from "./error.js";
import { float8Table } from "./float8.js";

/** Dtypes that `fromFloat32` writes. */
export type FloatDtype = "F64" | "F32" | "F16" | "BF16";

export const isFloatDtype = (dtype: Dtype): dtype is FloatDtype => ["F64", "F32", "F16", "BF16"].includes(dtype);

/**
 * The elements as float32, rounded to the nearest where the dtype is wider (F64, I32, U32, I64, U64).
 * F32 at an aligned address is a view of `data`, not a copy. C64, F4 and F6 have no such form and throw.
 * With `into`, which must have the number of elements, they are written there and `into` is returned.
 */
export function toFloat32(data: Uint8Array, dtype: Dtype, into?: Float32Array): Float32Array {
  if (into !== undefined) {
    const values = toFloat32(data, dtype);
    checkLength(into.length, values.length);
    into.set(values);
    return into;
  }
  if (data.length % Math.max(1, BITS[dtype] / 8) !== 0) {
    throw new SafetensorsError(undefined, `${data.length} bytes are no whole number of ${dtype} elements`);
  }
  switch (dtype) {
    case "F32":
      return view(Float32Array, data);
    case "BF16":
      return bfloat16ToFloat32(view(Uint16Array, data));
    case "F16":
      return decode(view(Uint16Array, data), float16Table());
    case "F64":
      return new Float32Array(view(Float64Array, data));
    case "F8_E4M3":
    case "F8_E5M2":
    case "F8_E8M0":
    case "F8_E4M3FNUZ":
    case "F8_E5M2FNUZ":
      return decode(data, float8Table(dtype));
    case "BOOL":
    case "U8":
      return new Float32Array(data);
    case "I8":
      return new Float32Array(view(Int8Array, data));
    case "I16":
      return new Float32Array(view(Int16Array, data));
    case "U16":
      return new Float32Array(view(Uint16Array, data));
    case "I32":
      return new Float32Array(view(Int32Array, data));
    case "U32":
      return new Float32Array(view(Uint32Array, data));
    case "I64":
      return Float32Array.from(view(BigInt64Array, data), Number);
    case "U64":
      return Float32Array.from(view(BigUint64Array, data), Number);
    default:
      throw new SafetensorsError(undefined, `dtype ${dtype} cannot be read as float32`);
  }
}

/**
 * The values as little-endian bytes, rounded to nearest, ties to even. F32 is a view of `values`, not a copy.
 * With `into`, which must have the number of bytes, they are written there and `into` is returned.
 */
export function fromFloat32(values: Float32Array, dtype: FloatDtype, into?: Uint8Array): Uint8Array {
  if (into !== undefined) {
    const bytes = fromFloat32(values, dtype);
    checkLength(into.length, bytes.length);
    into.set(bytes);
    return into;
  }
  switch (dtype) {
    case "F32":
      return bytesOf(values);
    case "BF16":
      return bytesOf(float32ToBfloat16(values));
    case "F16":
      return bytesOf(float32ToFloat16(values));
    case "F64":
      return bytesOf(new Float64Array(values));
    default:
      throw new SafetensorsError(undefined, `float32 cannot be written as ${dtype satisfies never}`);
  }
}

function checkLength(length: number, needed: number): void {
  if (length !== needed) throw new RangeError(`"into" has length ${length}, expected ${needed}`);
}

interface ViewConstructor<T> {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}

/** The bytes as elements of a typed array: a view where the address is aligned, otherwise of a copy. */
function view<T>(type: ViewConstructor<T>, data: Uint8Array): T {
  const size = type.BYTES_PER_ELEMENT;
  const aligned = data.byteOffset % size === 0 ? data : new Uint8Array(data);
  return new type(aligned.buffer, aligned.byteOffset, data.length / size);
}

const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** bfloat16 is the upper half of a float32. */
function bfloat16ToFloat32(halves: Uint16Array): Float32Array {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < bits.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

function float32ToBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < halves.length; i++) {
    const x = bits[i]!;
    const isNotANumber = (x & 0x7fffffff) > 0x7f800000;
    // Adding just under half of the last kept bit carries into it exactly when the rest is above half, or half and the bit odd.
    halves[i] = isNotANumber ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** IEEE 754 binary16, each of the 2^16 patterns as the bits of a float32. */
let float16Bits: Uint32Array | undefined;

function float16Table(): Uint32Array {
  if (float16Bits) return float16Bits;
  const values = new Float32Array(1 << 16);
  const bits = new Uint32Array(values.buffer);
  for (let half = 0; half < bits.length; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const mantissa = half & 1023;
    if (exponent === 0) {
      values[half] = (sign === 0 ? 1 : -1) * mantissa * 2 ** -24;
    } else {
      const wideExponent = exponent === 31 ? 255 : exponent - 15 + 127;
      bits[half] = sign | (wideExponent << 23) | (mantissa << 13);
    }
  }
  float16Bits = bits;
  return bits;
}

function decode(codes: Uint8Array | Uint16Array, table: Uint32Array): Float32Array {
  const bits = new Uint32Array(codes.length);
  for (let i = 0; i < bits.length; i++) bits[i] = table[codes[i]!]!;
  return new Float32Array(bits.buffer);
}

/** 2^16: from here on, float16 has infinity only. */
const FLOAT16_END = 0x47800000;
/** 2^-14: below, float16 is subnormal. */
const FLOAT16_NORMAL = 0x38800000;

function float32ToFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < halves.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const x = bits[i]! & 0x7fffffff;
    if (x >= FLOAT16_END) halves[i] = sign | (x > 0x7f800000 ? 0x7e00 : 0x7c00);
    else if (x < FLOAT16_NORMAL) halves[i] = sign | roundHalfEven(Math.abs(values[i]!) * 2 ** 24);
    else halves[i] = sign | ((x - ((127 - 15) << 23) + 0xfff + ((x >>> 13) & 1)) >>> 13);
  }
  return halves;
}

function roundHalfEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
