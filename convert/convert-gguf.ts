// A GGUF file to a Hugging Face model folder: weights dequantised a part at a time, config and tokenizer out of the metadata.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { byteLength, fromFloat32, type StreamedTensor, writeCheckpoint } from "safetensors-ts";
import { needingRoom } from "../model/disk.js";
import { ModelError } from "../model/errors.js";
import type { Dtype } from "../model/json.js";
import { replaceFolder, STORED_AS } from "../model/save.js";
import type { ConvertOptions } from "./convert.js";
import { formatOf } from "./formats.js";
import { type Architecture, gemmaConfig, readArchitecture, readSizes } from "./gemma-config.js";
import { type GemmaTensor, gemmaTensors } from "./gemma-tensors.js";
import { type GgufFile, type GgufTensor, openGguf } from "./gguf-header.js";
import { metadataReader } from "./metadata.js";
import { readSentencePiece, tokenIdsOf, tokenizerFiles } from "./sentencepiece.js";

interface ConvertGgufOptions extends Omit<ConvertOptions, "overwrite"> {
  readonly dtype: Dtype;
}

/** Elements that are converted at a time: 16 MB of float32. */
const PART = 2 ** 22;

/** Everything is checked before `out` is touched. Memory: a part of a tensor, and the vocabulary. */
export async function convertGguf({
  from,
  out,
  dtype,
  shardSize,
  onProgress = () => {},
  signal,
}: ConvertGgufOptions): Promise<void> {
  const file = await openGguf(from);
  try {
    const { files, places } = planConversion(file, dtype);
    let done = 0;
    const onPart = (bytes: number) => {
      signal?.throwIfAborted();
      done += bytes;
      onProgress(done, total);
    };
    const tensors = places.map((place) => streamed(file, place, dtype, onPart));
    const total = tensors.reduce((sum, tensor) => sum + byteLength(tensor), 0);
    onProgress(0, total);
    await needingRoom(out, total, () =>
      replaceFolder(out, async (partial) => {
        for (const [name, text] of Object.entries(files)) await writeFile(join(partial, name), text);
        await writeCheckpoint(partial, tensors, { shardSize });
      }),
    );
  } finally {
    await file.close();
  }
}

/** The texts of the files beside the weights, by name, and where the weights are. */
function planConversion(file: GgufFile, dtype: Dtype): { files: Record<string, string>; places: Place[] } {
  const metadata = metadataReader(file);
  const architecture = readArchitecture(metadata);
  refuseParts(file);
  const tokenizer = readSentencePiece(metadata);
  const tokens = tokenIdsOf(tokenizer);
  const sizes = readSizes(metadata, architecture, embeddingRows(file, tokenizer.pieces.length));
  const places = placeTensors(file, architecture, gemmaTensors(architecture, sizes));
  const generation = { bos_token_id: tokens.bos, eos_token_id: tokens.eos, pad_token_id: tokens.pad };
  return {
    files: {
      ...tokenizerFiles(tokenizer, metadata.integer(`${architecture}.context_length`)),
      "config.json": gemmaConfig(metadata, architecture, sizes, tokens, dtype),
      "generation_config.json": `${JSON.stringify(generation, null, 2)}\n`,
    },
    places,
  };
}

/** Models above 50 GB come in parts, whose tensors are in several files. */
function refuseParts({ path, metadata }: GgufFile): void {
  const parts = metadata.get("split.count") ?? 0;
  if (parts === 0 || parts === 1) return;
  throw new ModelError(path, `is one of ${parts} parts of a model: join them first, with llama-gguf-split --merge`);
}

function embeddingRows({ path, tensors }: GgufFile, tokens: number): number {
  const rows = tensors.find(({ name }) => name === "token_embd.weight")?.shape[0];
  if (rows === undefined) throw new ModelError(path, `has no tensor "token_embd.weight"`);
  if (rows >= tokens) return rows;
  throw new ModelError(path, `tensor "token_embd.weight" has ${rows} rows, expected one for each of ${tokens} tokens`);
}

interface Place extends GemmaTensor {
  readonly position: number;
  readonly format: ReturnType<typeof formatOf>;
  readonly blocks: number;
}

/** Where the model's tensors are. Throws where one is missing, of another shape, not all in the file, or one too many. */
function placeTensors(
  { path, fileBytes, tensors }: GgufFile,
  architecture: Architecture,
  wanted: readonly GemmaTensor[],
): Place[] {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const places = wanted.map((tensor): Place => {
    const found = byName.get(tensor.from);
    if (found === undefined) throw new ModelError(path, `has no tensor "${tensor.from}"`);
    byName.delete(tensor.from);
    return placeOf(path, fileBytes, tensor, found);
  });
  const [other] = byName.keys();
  if (other === undefined) return places;
  throw new ModelError(path, `has a tensor "${other}", which no ${architecture} has`);
}

function placeOf(path: string, fileBytes: number, tensor: GemmaTensor, found: GgufTensor): Place {
  const { name, shape, position } = found;
  if (`${shape}` !== `${tensor.shape}`) {
    throw new ModelError(path, `tensor "${name}" has shape [${shape}], expected [${tensor.shape}]`);
  }
  const format = formatOf(path, found);
  const blocks = shape.reduce((product, size) => product * size, 1) / format.blockSize;
  const end = position + blocks * format.blockBytes;
  if (end > fileBytes) {
    const problem = `ends at byte ${fileBytes}, tensor "${name}" at ${end}: it is cut short, get it again`;
    throw new ModelError(path, problem);
  }
  return { ...tensor, position, format, blocks };
}

function streamed(
  file: GgufFile,
  { name, shape, plus, position, format, blocks }: Place,
  dtype: Dtype,
  onPart: (bytes: number) => void,
): StreamedTensor {
  const stored = STORED_AS[dtype];
  const { blockSize, blockBytes, dequantize } = format;
  async function* chunks() {
    const part = Math.min(blocks, PART / blockSize);
    const [bytes, values] = [new Uint8Array(part * blockBytes), new Float32Array(part * blockSize)];
    for (let at = 0; at < blocks; at += part) {
      const count = Math.min(part, blocks - at);
      const [source, target] = [bytes.subarray(0, count * blockBytes), values.subarray(0, count * blockSize)];
      await file.read(position + at * blockBytes, source);
      dequantize(source, target);
      if (plus !== 0) for (let i = 0; i < target.length; i++) target[i] = target[i]! - plus;
      const rounded = fromFloat32(target, stored);
      onPart(rounded.length);
      yield rounded;
    }
  }
  return { name, dtype: stored, shape, chunks };
}
