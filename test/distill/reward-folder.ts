/** Reward models made of a language model's layers and a head that is set by hand. */
import { cp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, type StreamedTensor, writeCheckpoint, writeSafetensors } from "safetensors-ts";
import { tf, Variable } from "tfjs-jit";
import { readModelConfig } from "../../model/config.js";
import type { LoadedModel } from "../../model/loaded.js";
import { SCORE } from "../../model/shapes.js";
import { setKeys } from "../model/folder.js";

/** A head of `labels` rows: the numbers sin(1), sin(2), ... times a factor. */
export const sines = (size: number, factor: number): Float32Array =>
  Float32Array.from({ length: size }, (_, i) => factor * Math.sin(i + 1));

/** A model folder as transformers writes a Gemma2ForSequenceClassification: that of a language model, with a head. */
export async function writeRewardModel(from: string, to: string, { labels = 1, factor = 1 } = {}): Promise<void> {
  await cp(from, to, { recursive: true });
  await rm(join(to, "model.safetensors"));
  const id2label = Object.fromEntries(Array.from({ length: labels }, (_, i) => [i, `LABEL_${i}`]));
  await setKeys(join(to, "config.json"), { architectures: ["Gemma2ForSequenceClassification"], id2label });
  const checkpoint = await openCheckpoint(from);
  const tensors = checkpoint.tensors.map(
    ({ name, dtype, shape }): StreamedTensor => ({
      name,
      dtype,
      shape,
      chunks: async function* () {
        yield await checkpoint.read(name);
      },
    }),
  );
  const [width] = checkpoint.tensors.find(({ name }) => name === "model.norm.weight")!.shape;
  const head = sines(labels * width!, factor);
  const score: StreamedTensor = {
    name: SCORE,
    dtype: "F32",
    shape: [labels, width!],
    chunks: () => [new Uint8Array(head.buffer)],
  };
  await writeCheckpoint(to, [...tensors, score]);
  await checkpoint.close();
}

/** An adapter of one label on a language model, as PEFT writes a SEQ_CLS: what it changes is the head alone. */
export async function writeRewardAdapter(base: string, to: string): Promise<void> {
  const lora = { r: 2, lora_alpha: 4, target_modules: ["q_proj"], modules_to_save: ["classifier", "score"] };
  const config = { peft_type: "LORA", task_type: "SEQ_CLS", base_model_name_or_path: base, ...lora };
  await writeFile(join(to, "adapter_config.json"), JSON.stringify(config));
  const { hiddenSize, headDim, numAttentionHeads } = await readModelConfig(base);
  const tensor = (name: string, shape: number[], values: Float32Array): StreamedTensor => ({
    name: `base_model.model.${name}`,
    dtype: "F32",
    shape,
    chunks: () => [new Uint8Array(values.buffer)],
  });
  const q = "model.layers.0.self_attn.q_proj";
  await writeSafetensors(join(to, "adapter_model.safetensors"), [
    tensor(`${q}.lora_A.weight`, [2, hiddenSize], sines(2 * hiddenSize, 1)),
    tensor(`${q}.lora_B.weight`, [numAttentionHeads * headDim, 2], sines(2 * numAttentionHeads * headDim, 0)),
    tensor("score.weight", [1, hiddenSize], sines(hiddenSize, 0.05)),
  ]);
}

/** The model with a head in memory; it shares the other parameters. */
export function withHead({ folder, parameters }: LoadedModel, head: Float32Array): LoadedModel {
  const tensor = tf.tensor2d(head, [1, head.length]);
  const score = new Variable(tensor);
  tensor.dispose();
  const config = { ...folder.config, numLabels: 1 };
  return { folder: { ...folder, config }, parameters: { ...parameters, [SCORE]: score } };
}
