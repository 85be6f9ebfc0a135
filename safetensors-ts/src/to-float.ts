// Elements of any dtype as float32 or float64.
import { BITS, type Dtype } from "./dtypes.js";
import { bytesOf, elementsOf } from "./element-views.js";
import { SafetensorsError } from "./error.js";
import { E8M0_TABLE, minifloatTable } from "./minifloat.js";

/**
 * The elements as float32; F64, I32, U32, I64 and U64 are rounded to the nearest, ties to even, the others are exact.
 * F32 at an aligned address is a view of `data`, not a copy. F4 is two elements a byte, the low four bits first.
 * A NaN of F16, BF16 and F8_E5M2 keeps its sign and payload.
 * With `into`, which must have the number of elements and not overlap `data`, they are written there, without other
 * memory where `data` is aligned (BF16 to 4 bytes), and `into` is returned.
 * @throws SafetensorsError for C64, F6_E2M3 and F6_E3M2, and for a part of an element; RangeError for `into` of another length.
 */
export function toFloat32(data: Uint8Array, dtype: Dtype, into?: Float32Array): Float32Array {
  checkReadable(dtype, "float32");
  const count = countElements(data, dtype);
  if (into === undefined && dtype === "F32") return elementsOf(Float32Array, data);
  const values = checked(into, count) ?? new Float32Array(count);
  const bits = () => new Uint32Array(values.buffer, values.byteOffset, count);
  switch (dtype) {
    case "F32":
      bytesOf(values).set(data);
      break;
    case "BF16":
      bfloat16ToFloat32(data, bits());
      break;
    case "F16":
      lookUp(elementsOf(Uint16Array, data), minifloatTable(dtype), bits());
      break;
    case "F8_E4M3":
    case "F8_E5M2":
    case "F8_E4M3FNUZ":
    case "F8_E5M2FNUZ":
      lookUp(data, minifloatTable(dtype), bits());
      break;
    case "F8_E8M0":
      lookUp(data, E8M0_TABLE, bits());
      break;
    case "F4":
      lookUpHalves(data, minifloatTable(dtype), bits());
      break;
    case "I64":
      int64ToFloat32(elementsOf(Uint32Array, data), values, elementsOf(Int32Array, data));
      break;
    case "U64":
      int64ToFloat32(elementsOf(Uint32Array, data), values, elementsOf(Uint32Array, data));
      break;
    default:
      values.set(numbersOf(data, dtype));
  }
  return values;
}

/**
 * The elements as float64; I64 and U64 are rounded to the nearest, ties to even, the others are exact.
 * F64 at an aligned address is a view of `data`, not a copy. `into` and errors are those of `toFloat32`.
 */
export function toFloat64(data: Uint8Array, dtype: Dtype, into?: Float64Array): Float64Array {
  checkReadable(dtype, "float64");
  const count = countElements(data, dtype);
  if (into === undefined && dtype === "F64") return elementsOf(Float64Array, data);
  const values = checked(into, count) ?? new Float64Array(count);
  if (dtype === "F64") bytesOf(values).set(data);
  else if (dtype === "I64") int64ToFloat64(elementsOf(Uint32Array, data), values, elementsOf(Int32Array, data));
  else if (dtype === "U64") int64ToFloat64(elementsOf(Uint32Array, data), values, elementsOf(Uint32Array, data));
  else if (dtype === "I32" || dtype === "U32") values.set(numbersOf(data, dtype));
  else {
    // Exact in float32: by way of it, a part at a time.
    const part = new Float32Array(Math.min(count, PART));
    for (let at = 0; at < count; at += PART) {
      const size = Math.min(PART, count - at);
      const bytes = data.subarray((at * BITS[dtype]) / 8, ((at + size) * BITS[dtype]) / 8);
      values.set(toFloat32(bytes, dtype, part.subarray(0, size)), at);
    }
  }
  return values;
}

/** Elements of a part, even for F4: small enough for the cache. */
const PART = 4096;

type ReadableDtype = Exclude<Dtype, "C64" | "F6_E2M3" | "F6_E3M2">;

function checkReadable(dtype: Dtype, float: string): asserts dtype is ReadableDtype {
  if (dtype === "F6_E2M3" || dtype === "F6_E3M2") {
    const problem = `${dtype} cannot be read as ${float}: how 6-bit elements are packed into bytes is not agreed on`;
    throw new SafetensorsError(undefined, problem);
  }
  if (dtype === "C64") {
    throw new SafetensorsError(undefined, `C64 cannot be read as ${float}: its elements are complex`);
  }
}

function countElements(data: Uint8Array, dtype: ReadableDtype): number {
  const count = (data.length * 8) / BITS[dtype];
  if (!Number.isInteger(count)) {
    throw new SafetensorsError(undefined, `${data.length} bytes are no whole number of ${dtype} elements`);
  }
  return count;
}

function checked<T extends Float32Array | Float64Array>(into: T | undefined, count: number): T | undefined {
  if (into === undefined || into.length === count) return into;
  throw new RangeError(`"into" has length ${into.length}, expected ${count}`);
}

/** Elements that a typed array reads as numbers. */
function numbersOf(data: Uint8Array, dtype: "F64" | "BOOL" | "U8" | "I8" | "U16" | "I16" | "U32" | "I32") {
  switch (dtype) {
    case "F64":
      return elementsOf(Float64Array, data);
    case "BOOL":
    case "U8":
      return data;
    case "I8":
      return elementsOf(Int8Array, data);
    case "U16":
      return elementsOf(Uint16Array, data);
    case "I16":
      return elementsOf(Int16Array, data);
    case "U32":
      return elementsOf(Uint32Array, data);
    case "I32":
      return elementsOf(Int32Array, data);
  }
}

/** bfloat16 is the upper half of a float32. Two are read at a time: half the loads. */
function bfloat16ToFloat32(data: Uint8Array, bits: Uint32Array): void {
  const inPairs = bits.length & ~1;
  const pairs = elementsOf(Uint32Array, data.subarray(0, 2 * inPairs));
  for (let i = 0; i < pairs.length; i++) {
    const pair = pairs[i]!;
    bits[2 * i] = pair << 16;
    bits[2 * i + 1] = pair & 0xffff0000;
  }
  if (inPairs < bits.length) bits[inPairs] = (data[2 * inPairs]! << 16) | (data[2 * inPairs + 1]! << 24);
}

function lookUp(codes: Uint8Array | Uint16Array, table: Uint32Array, bits: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) bits[i] = table[codes[i]!]!;
}

function lookUpHalves(pairs: Uint8Array, table: Uint32Array, bits: Uint32Array): void {
  for (let i = 0; i < pairs.length; i++) {
    bits[2 * i] = table[pairs[i]! & 15]!;
    bits[2 * i + 1] = table[pairs[i]! >> 4]!;
  }
}

/** Words are low, high, low, high...; `highs` are the same, signed for I64. The sum is rounded once. */
function int64ToFloat64(words: Uint32Array, values: Float64Array, highs: Int32Array | Uint32Array) {
  for (let i = 0; i < values.length; i++) values[i] = highs[2 * i + 1]! * 2 ** 32 + words[2 * i]!;
}

/**
 * By way of a float64 that is exact: from 2^53 on, the lowest 11 bits, which decide nothing but whether a float32 is
 * above a tie, are replaced by one bit that says whether any of them was set.
 */
function int64ToFloat32(words: Uint32Array, values: Float32Array, highs: Int32Array | Uint32Array) {
  for (let i = 0; i < values.length; i++) {
    const upper = highs[2 * i + 1]!;
    let lower = words[2 * i]!;
    if (Math.abs(upper) >= 2 ** 20 && (lower & 0x7ff) !== 0) lower = ((lower & ~0x7ff) | 0x800) >>> 0;
    values[i] = upper * 2 ** 32 + lower;
  }
}
