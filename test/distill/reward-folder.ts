/** Reward models made of a language model's layers and a head that is set by hand. */
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, type StreamedTensor, writeCheckpoint } from "safetensors-ts";
import { tf, Variable } from "tfjs-jit";
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

/** The model with a head in memory; it shares the other parameters. */
export function withHead({ folder, parameters }: LoadedModel, head: Float32Array): LoadedModel {
  const tensor = tf.tensor2d(head, [1, head.length]);
  const score = new Variable(tensor);
  tensor.dispose();
  const config = { ...folder.config, numLabels: 1 };
  return { folder: { ...folder, config }, parameters: { ...parameters, [SCORE]: score } };
}
