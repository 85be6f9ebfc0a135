// Lays tensors out in a file and writes the header, byte for byte as the reference does.
import { byteLength, dtypeRank, isDtype, type TensorSpec } from "./dtypes.js";
import { SafetensorsError } from "./error.js";
import { LENGTH_BYTES, MAX_HEADER_BYTES } from "./read-header.js";

/** `header` is the file up to its first tensor; `tensors` are in the order of the file; `dataBytes` is their total. */
export interface Layout<T extends TensorSpec> {
  readonly header: Uint8Array;
  readonly tensors: readonly T[];
  readonly dataBytes: number;
}

/**
 * Order: dtype from the widest alignment down, then name by its UTF-8 bytes, so that the bytes of a file depend on its
 * content and not on the order of insertion. Metadata keys are sorted for the same reason (the reference shuffles them).
 */
export function layOut<T extends TensorSpec>(
  unordered: Iterable<T>,
  metadata?: Readonly<Record<string, string>>,
): Layout<T> {
  const tensors = [...unordered];
  checkNames(tensors);
  tensors.sort((a, b) => dtypeRank(b.dtype) - dtypeRank(a.dtype) || compareUtf8(a.name, b.name));
  const entries = metadata === undefined ? [] : [`"__metadata__":${metadataJson(metadata)}`];
  let begin = 0;
  for (const tensor of tensors) {
    const end = begin + byteLength(tensor);
    const { name, dtype, shape } = tensor;
    entries.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`);
    begin = end;
  }
  return { header: encode(`{${entries.join(",")}}`), tensors, dataBytes: begin };
}

/** The JSON, padded with spaces to a multiple of 8, after its length. */
function encode(json: string): Uint8Array {
  const bytes = new TextEncoder().encode(json);
  const padded = Math.ceil(bytes.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES) {
    throw new SafetensorsError(undefined, `header would take ${padded} bytes, expected at most ${MAX_HEADER_BYTES}`);
  }
  const header = new Uint8Array(LENGTH_BYTES + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(bytes, LENGTH_BYTES);
  return header;
}

/** Throws for a name that comes twice or that no reader would take, and for an unknown dtype. */
export function checkNames(tensors: readonly TensorSpec[]): void {
  const seen = new Set<string>();
  for (const { name, dtype } of tensors) {
    if (name === "__metadata__") throw new SafetensorsError(undefined, `no tensor may be called "__metadata__"`, name);
    if (seen.has(name)) throw new SafetensorsError(undefined, `two tensors are called "${name}"`, name);
    if (hasLoneSurrogate(name))
      throw new SafetensorsError(undefined, `tensor name ${JSON.stringify(name)} is not Unicode`, name);
    if (!isDtype(dtype)) throw new SafetensorsError(undefined, `tensor "${name}" has unknown dtype "${dtype}"`, name);
    seen.add(name);
  }
}

function metadataJson(metadata: Readonly<Record<string, string>>): string {
  const entries = Object.entries(metadata).sort(([a], [b]) => compareUtf8(a, b));
  for (const [key, value] of entries) {
    if (typeof value !== "string" || hasLoneSurrogate(key) || hasLoneSurrogate(value)) {
      throw new SafetensorsError(
        undefined,
        `metadata "${key}" should be a string of Unicode text, got ${typeof value}`,
      );
    }
  }
  return `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(",")}}`;
}

const hasLoneSurrogate = (text: string) => /\p{Surrogate}/u.test(text);

/** Orders as UTF-8 bytes do, and code points. JavaScript's own order puts U+10000 and up (pairs of surrogates) before U+E000. */
export function compareUtf8(a: string, b: string): number {
  let i = 0;
  while (i < a.length && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  if (i >= a.length || i >= b.length) return a.length - b.length;
  return codePointRank(a.charCodeAt(i)) - codePointRank(b.charCodeAt(i));
}

const codePointRank = (unit: number) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);
