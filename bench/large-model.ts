/** Writes a folder of random bfloat16 weights in the shape of a published model, with the arithmetic fixture's tokenizer. */
import { access, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type StreamedTensor, writeCheckpoint } from "safetensors-ts";
import { parseModelConfig } from "../model/config.js";
import { copySideFiles, replaceFolder } from "../model/save.js";
import { parameterShapes } from "../model/shapes.js";
import { arithmetic } from "./stages.js";

const gemma2 = { model_type: "gemma2", architectures: ["Gemma2ForCausalLM"], vocab_size: 256000, sliding_window: 4096 };
const gemma3 = {
  model_type: "gemma3_text",
  architectures: ["Gemma3ForCausalLM"],
  vocab_size: 262144,
  sliding_window: 512,
  sliding_window_pattern: 6,
  query_pre_attn_scalar: 256,
  rope_theta: 1e6,
  rope_local_base_freq: 1e4,
};

/** Width, query heads, key heads, head size, width of the MLP: the hub's values. */
const sizes = (D: number, N: number, K: number, H: number, F: number) => ({
  hidden_size: D,
  num_attention_heads: N,
  num_key_value_heads: K,
  head_dim: H,
  intermediate_size: F,
});

export const PUBLISHED = {
  "gemma-2-2b": { ...gemma2, ...sizes(2304, 8, 4, 256, 9216), query_pre_attn_scalar: 256 },
  "gemma-2-9b": { ...gemma2, ...sizes(3584, 16, 8, 256, 14336), query_pre_attn_scalar: 256 },
  "gemma-2-27b": { ...gemma2, ...sizes(4608, 32, 16, 128, 36864), query_pre_attn_scalar: 144 },
  "gemma-3-270m": { ...gemma3, ...sizes(640, 4, 1, 256, 2048) },
  "gemma-3-1b": { ...gemma3, ...sizes(1152, 4, 1, 256, 6912) },
} as const;

export type Published = keyof typeof PUBLISHED;

/** The hub's config of a published model with so many layers. */
export const publishedConfig = (name: Published, layers: number) => ({
  ...PUBLISHED[name],
  num_hidden_layers: layers,
  max_position_embeddings: 8192,
  bos_token_id: 2,
  eos_token_id: 1,
  pad_token_id: 0,
  dtype: "bfloat16",
});

/** Writes so many layers of a published model into `dir`, unless they are there. */
export async function writePublished(dir: string, name: Published, layers: number): Promise<void> {
  const path = join(dir, "config.json");
  const config = publishedConfig(name, layers);
  const text = `${JSON.stringify(config, null, 2)}\n`;
  const isThere = await access(path).then(
    async () => (await readFile(path, "utf8")) === text,
    () => false,
  );
  if (isThere) return;
  const shapes = parameterShapes(parseModelConfig(path, config));
  const tensors = Object.entries(shapes).map(
    ([name, shape]): StreamedTensor => ({
      name,
      dtype: "BF16",
      shape,
      chunks: () =>
        randomBfloat16(
          shape.reduce((a, b) => a * b, 1),
          shape.length === 1 ? 0 : 0.02,
        ),
    }),
  );
  await replaceFolder(dir, async (partial) => {
    await copySideFiles(arithmetic("teacher"), partial);
    await writeFile(join(partial, "config.json"), text);
    await writeCheckpoint(partial, tensors);
  });
}

/** n uniform numbers of a standard deviation: a block of them again and again, since drawing billions takes minutes. */
function* randomBfloat16(n: number, deviation: number): Generator<Uint8Array> {
  const numbers = Float32Array.from(
    { length: Math.min(n, 2 ** 22) },
    () => (Math.random() - 0.5) * Math.sqrt(12) * deviation,
  );
  const halves = Uint16Array.from(new Uint32Array(numbers.buffer), (bits) => bits >>> 16);
  const bytes = new Uint8Array(halves.buffer);
  for (let left = 2 * n; left > 0; left -= bytes.length) yield bytes.subarray(0, Math.min(left, bytes.length));
}
