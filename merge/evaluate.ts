// Computes parts of output tensors, in the thread it runs in: reads the sources, applies methods, gives bytes to store.
import {
  BITS,
  type Dtype,
  type FloatDtype,
  fromFloat32,
  isFloatDtype,
  SafetensorsError,
  toFloat32,
} from "safetensors-ts";
import { bfloat16Weights, measureBfloat16, sumBfloat16 } from "./bfloat16.js";
import { brokenFile, gatherRows } from "./gather-rows.js";
import { measureGeometry } from "./geometry.js";
import { addLoraRows } from "./lora.js";
import { combinePart, type Known, measurePart as measurePass, type Part } from "./method.js";
import { METHODS } from "./methods.js";
import type { PartRange } from "./parts.js";
import type { LoraSource, MergeSource, OutputTensor, RowsSource, Source, TensorPlace } from "./plan.js";
import {
  allocateBytes,
  allocateFloats,
  arenaBytes,
  clearArena,
  decodeBfloat16,
  encodeBfloat16,
  isFiniteArray,
} from "./simd/arena.js";

/** The files of a plan, as one thread sees them. */
export interface Files {
  readonly paths: readonly string[];
  /** Fills `into` with the bytes of file number `file` from byte `position` on. */
  read(file: number, position: number, into: Uint8Array): void;
}

/** What has been concluded so far of each merge of the recipe, by `MergeSource.merge`. */
export type KnownByMerge = Readonly<Record<number, Known>>;

/** A part of an output tensor. */
export interface Place {
  readonly tensor: OutputTensor;
  readonly range: PartRange;
  readonly known: KnownByMerge;
}

/** The sums of one pass of a merge over one part. */
export function measurePart(files: Files, place: Place, merge: number, pass: number): Float64Array | Uint32Array {
  const { tensor, range, known } = place;
  const node = findMerge(tensor.source, merge)!;
  const { settings } = node;
  const { [pass]: wanted } = METHODS[node.method].passes;
  const of = wanted!.products?.(settings) ?? null;
  const products = of && tensor.dtype === "BF16" ? measureBfloat16(files, range, node, of) : null;
  if (products) return products;
  clearArena(arenaBytesOf(tensor.source, range));
  return measurePass(wanted!, sourcesOf(files, place, node), settings, known[merge] ?? []);
}

/** The bytes of one part to store, valid until the next call, and its geometry (see geometry.ts) where it is wanted. */
export function computePart(
  files: Files,
  place: Place,
  isMeasured: boolean,
): { bytes: Uint8Array; geometry: Float64Array | null } {
  const { tensor, range } = place;
  const weights = bfloat16Weights(place);
  if (weights !== null) {
    const geometry = isMeasured ? geometryOf(files, place) : null;
    const bytes = sumBfloat16(files, place, weights);
    if (bytes !== null) return { bytes, geometry };
  }
  clearArena(arenaBytesOf(tensor.source, range) + arenaBytes(range.length, BITS[tensor.dtype] / 8));
  if (isCopied(tensor)) return { bytes: copyPart(files, place), geometry: null };
  const { source } = tensor;
  const part = source.kind === "merge" ? sourcesOf(files, place, source) : null;
  const values = source.kind === "merge" ? combine(place, source, part!) : evaluate(files, place, source);
  const dtype = tensor.dtype as FloatDtype;
  if (!isFiniteArray(values)) throw notFinite(values, "the result", place);
  const into = allocateBytes(range.length, BITS[dtype] / 8);
  if (dtype === "BF16") encodeBfloat16(values, into);
  else fromFloat32(values, dtype, into);
  // float16 ends at 65504: what fits in the inputs may not fit here.
  if (dtype === "F16") {
    const stored = toFloat32(into, dtype);
    if (!stored.every(Number.isFinite)) throw notFinite(stored, "result as float16", place);
  }
  return { bytes: into, geometry: isMeasured && part?.base ? measureGeometry(part) : null };
}

function geometryOf(files: Files, place: Place): Float64Array | null {
  const source = place.tensor.source as MergeSource;
  if (source.base === null) return null;
  clearArena(arenaBytesOf(source, place.range));
  return measureGeometry(sourcesOf(files, place, source));
}

/** Whether a tensor is stored as it is read, byte for byte. */
const isCopied = ({ source, dtype }: OutputTensor): boolean => source.kind === "tensor" && source.place.dtype === dtype;

/** The merge of that number within a tensor's source, if it is there. */
export function findMerge(source: Source | null, merge: number): MergeSource | undefined {
  if (source === null) return undefined;
  if (source.kind === "lora") return findMerge(source.of, merge);
  if (source.kind !== "merge") return undefined;
  if (source.merge === merge) return source;
  for (const inner of [source.base, ...source.models]) {
    const found = findMerge(inner, merge);
    if (found) return found;
  }
  return undefined;
}

/** Room in the arena for everything that a part of this source needs at a time. */
function arenaBytesOf(source: Source, { length, columns }: PartRange): number {
  const floats = arenaBytes(length, 4);
  switch (source.kind) {
    case "tensor":
      return floats + arenaBytes(length, bytesPerElement(source.place.dtype));
    case "rows":
      return floats;
    case "lora":
      return arenaBytesOf(source.of, { length, columns } as PartRange);
    case "merge": {
      const inputs = [source.base, ...source.models].filter((input) => input !== null);
      return inputs.reduce((sum, input) => sum + arenaBytesOf(input, { length, columns } as PartRange), floats);
    }
  }
}

function evaluate(files: Files, place: Place, source: Source): Float32Array {
  switch (source.kind) {
    case "tensor":
      return readFloats(files, place, source.place);
    case "rows":
      return gather(files, place, source);
    case "lora":
      return addAdapter(files, place, source);
    case "merge":
      return combine(place, source, sourcesOf(files, place, source));
  }
}

function combine({ range, known }: Place, { method, settings, merge }: MergeSource, part: Part): Float32Array {
  const out = allocateFloats(range.length);
  combinePart(METHODS[method], part, settings, known[merge] ?? [], out);
  return out;
}

/** What a method sees of a part. */
function sourcesOf(files: Files, place: Place, { base, models }: MergeSource): Part {
  return {
    ...place.range,
    base: base && evaluate(files, place, base),
    models: models.map((model) => evaluate(files, place, model)),
  };
}

const bytesPerElement = (dtype: Dtype) => Math.max(1, BITS[dtype] / 8);

function readFloats(files: Files, place: Place, from: TensorPlace): Float32Array {
  const { start, length } = place.range;
  const size = bytesPerElement(from.dtype);
  const raw = allocateBytes(length, size);
  files.read(from.file, from.position + start * size, raw);
  if (from.dtype === "F32") {
    const values = new Float32Array(raw.buffer, raw.byteOffset, length);
    if (!isFiniteArray(values)) throw notFinite(values, files.paths[from.file]!, place);
    return values;
  }
  const values = allocateFloats(length);
  if (from.dtype === "BF16") {
    if (!decodeBfloat16(raw, values)) throw notFinite(values, files.paths[from.file]!, place);
    return values;
  }
  toFloat32(raw, from.dtype, values);
  if (!isFiniteArray(values)) throw notFinite(values, files.paths[from.file]!, place);
  return values;
}

function gather(files: Files, place: Place, source: RowsSource): Float32Array {
  const { start, length, columns } = place.range;
  const values = allocateFloats(length);
  gatherRows(files, source, columns, start / columns, values);
  if (!isFiniteArray(values)) {
    const row = Math.floor((start + values.findIndex((x) => !Number.isFinite(x))) / columns);
    throw notFinite(values, files.paths[brokenFile(files, source, columns, row)]!, place);
  }
  return values;
}

function addAdapter(files: Files, place: Place, { of, a, b, scale }: LoraSource): Float32Array {
  const { start, length, columns } = place.range;
  const values = evaluate(files, place, of);
  const rank = a.shape[0]!;
  const firstRow = Math.floor(start / columns);
  const rows = Math.ceil((start + length) / columns) - firstRow;
  const read = (from: TensorPlace, first: number, count: number) => {
    const size = bytesPerElement(from.dtype);
    const raw = new Uint8Array(count * size);
    files.read(from.file, from.position + first * size, raw);
    return toFloat32(raw, from.dtype);
  };
  addLoraRows(values, 0, read(a, 0, rank * columns), read(b, firstRow * rank, rows * rank), columns, rank, scale);
  if (!isFiniteArray(values)) throw notFinite(values, files.paths[b.file]!, place);
  return values;
}

/** The bytes as they are. Throws unless all models that hold the tensor hold the same. */
function copyPart(files: Files, { tensor, range }: Place): Uint8Array {
  const { place } = tensor.source as Extract<Source, { kind: "tensor" }>;
  const size = bytesPerElement(place.dtype);
  const bytes = allocateBytes(range.length, size);
  files.read(place.file, place.position + range.start * size, bytes);
  if (isFloatDtype(tensor.dtype)) return bytes;
  const other = new Uint8Array(bytes.length);
  for (const { file, position, dtype } of tensor.sameAs ?? []) {
    files.read(file, position + range.start * size, other);
    if (dtype === place.dtype && Buffer.compare(bytes, other) === 0) continue;
    const problem = `tensor "${tensor.name}" of dtype ${dtype} differs from ${files.paths[place.file]}'s of ${place.dtype}: only float tensors can be merged`;
    throw new SafetensorsError(files.paths[file], problem, tensor.name);
  }
  return bytes;
}

function notFinite(values: Float32Array, path: string, { tensor, range }: Place): SafetensorsError {
  const index = values.findIndex((x) => !Number.isFinite(x));
  const problem = `tensor "${tensor.name}" holds ${values[index]} at element ${range.start + index}`;
  return new SafetensorsError(path, problem, tensor.name);
}
