/** Writes a folder of random bfloat16 weights in the shape of a published model, with the arithmetic fixture's tokenizer. */
import { access, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type StreamedTensor, writeCheckpoint } from "safetensors-ts";
import { parseModelConfig } from "../model/config.js";
import { copySideFiles, replaceFolder } from "../model/save.js";
import { parameterShapes } from "../model/shapes.js";
import { arithmetic } from "./stages.js";

/** The hub's config of gemma-2-2b, and how many of its layers. */
export const gemma2 = (layers: number) => ({
  model_type: "gemma2",
  architectures: ["Gemma2ForCausalLM"],
  vocab_size: 256000,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: layers,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  query_pre_attn_scalar: 256,
  max_position_embeddings: 8192,
  sliding_window: 4096,
  bos_token_id: 2,
  eos_token_id: 1,
  pad_token_id: 0,
  dtype: "bfloat16",
});

/** Writes the model into `dir`, unless it is there. */
export async function writeGemma2(dir: string, layers: number): Promise<void> {
  const path = join(dir, "config.json");
  const config = gemma2(layers);
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
