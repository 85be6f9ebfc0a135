// The part of the package that needs no Node: bytes in, bytes out.
export { type FloatDtype, fromFloat32, isFloatDtype, toFloat32 } from "./convert.js";
export { BITS, byteLength, type Dtype, isDtype, type NamedTensor, type TensorSpec } from "./dtypes.js";
export { SafetensorsError } from "./error.js";
export { deserialize, type Safetensors, serialize } from "./format.js";
export { type Header, headerLength, MAX_HEADER_BYTES, parseHeader, type TensorInfo } from "./read-header.js";
