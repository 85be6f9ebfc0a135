// A whole safetensors file in memory: bytes to tensors and back.
import { byteLength, type NamedTensor } from "./dtypes.js";
import { SafetensorsError } from "./error.js";
import { headerLength, LENGTH_BYTES, parseHeader } from "./read-header.js";
import { layOut } from "./write-header.js";

/** What a file holds. `metadata` is {} where the file has none. */
export interface Safetensors {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly NamedTensor[];
}

/** Tensors in the order of the file. Their `data` are views of `bytes`, at any alignment: nothing is copied. */
export function deserialize(bytes: Uint8Array): Safetensors {
  const length = headerLength(bytes, bytes.length);
  const { metadata, tensors, dataStart } = parseHeader(
    bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + length),
    bytes.length,
  );
  return {
    metadata,
    tensors: tensors.map(({ name, dtype, shape, begin, end }) => ({
      name,
      dtype,
      shape,
      data: bytes.subarray(dataStart + begin, dataStart + end),
    })),
  };
}

/** The same bytes as the reference writes, whatever the order of `tensors`. Without `metadata`, the header has no `__metadata__`. */
export function serialize(tensors: Iterable<NamedTensor>, metadata?: Readonly<Record<string, string>>): Uint8Array {
  const layout = layOut(tensors, metadata);
  const bytes = new Uint8Array(layout.header.length + layout.dataBytes);
  bytes.set(layout.header);
  let at = layout.header.length;
  for (const tensor of layout.tensors) {
    checkDataLength(tensor, tensor.data.length);
    bytes.set(tensor.data, at);
    at += tensor.data.length;
  }
  return bytes;
}

/** Throws unless `bytes` of data are what the tensor's dtype and shape need. */
export function checkDataLength(tensor: Omit<NamedTensor, "data">, bytes: number, path?: string): void {
  const { name, dtype, shape } = tensor;
  const needed = byteLength(tensor);
  if (bytes !== needed) {
    const problem = `tensor "${name}" of dtype ${dtype} and shape [${shape}] needs ${needed} bytes, got ${bytes}`;
    throw new SafetensorsError(path, problem, name);
  }
}
