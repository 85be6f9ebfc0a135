// The part of the package that needs no Node: bytes in, bytes out.

export { BITS, byteLength, type Dtype, isDtype, type NamedTensor, type TensorSpec } from "./dtypes.js";
export { SafetensorsError } from "./error.js";
export { deserialize, type Safetensors, serialize } from "./format.js";
export { type FloatDtype, fromFloat32, fromFloat64, isFloatDtype } from "./from-float.js";
export { type Header, headerLength, MAX_HEADER_BYTES, parseHeader, type TensorInfo } from "./read-header.js";
export { toFloat32, toFloat64 } from "./to-float.js";
