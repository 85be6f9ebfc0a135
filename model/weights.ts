/** The weights of a model folder as float32 tensors, checked against its config. */
import { openCheckpoint, type TensorInfo } from "safetensors-ts";
import { tf } from "tfjs-jit";
import type { Gemma2Config } from "./config.js";
import { ModelError } from "./errors.js";
import { EMBEDDING, parameterShapes } from "./gemma2.js";

type Checkpoint = Awaited<ReturnType<typeof openCheckpoint>>;

/** Some tools write the tied head as well. */
const HEAD = "lm_head.weight";

/**
 * Float32 tensors by name, read one after the other. Checked are names and shapes (before anything is read), dtypes and
 * that every value is finite; the safetensors format itself is checked by the reader, whose errors pass through.
 */
export async function loadWeights(dir: string, config: Gemma2Config): Promise<Record<string, tf.Tensor>> {
  const checkpoint = await openCheckpoint(dir);
  const weights: Record<string, tf.Tensor> = {};
  try {
    const shapes = parameterShapes(config);
    checkHeaders(dir, checkpoint.tensors, shapes);
    await checkHead(dir, checkpoint);
    for (const [name, shape] of Object.entries(shapes)) {
      const values = await checkpoint.readFloat32(name);
      const wrong = firstNotFinite(values);
      if (wrong < values.length) {
        throw new ModelError(dir, `tensor "${name}" is ${values[wrong]} at index ${wrong}, expected finite numbers`);
      }
      weights[name] = tf.tensor(values, shape);
    }
    return weights;
  } catch (error) {
    tf.dispose(weights);
    throw error;
  } finally {
    await checkpoint.close();
  }
}

function checkHeaders(dir: string, tensors: readonly TensorInfo[], shapes: Record<string, number[]>): void {
  const infos = new Map(tensors.map((info) => [info.name, info]));
  const expected: Record<string, number[]> = infos.has(HEAD) ? { ...shapes, [HEAD]: shapes[EMBEDDING]! } : shapes;
  for (const [name, shape] of Object.entries(expected)) {
    const info = infos.get(name);
    if (!info) throw new ModelError(dir, `tensor "${name}" is missing, expected shape [${shape}] by config.json`);
    if (`${info.shape}` !== `${shape}`) {
      throw new ModelError(dir, `tensor "${name}" has shape [${info.shape}], expected [${shape}] by config.json`);
    }
    if (!["F32", "BF16", "F16"].includes(info.dtype)) {
      throw new ModelError(dir, `tensor "${name}" has dtype ${info.dtype}, expected F32, BF16 or F16`);
    }
  }
  const unexpected = tensors.find((info) => !(info.name in expected));
  if (unexpected) {
    throw new ModelError(dir, `tensor "${unexpected.name}" is no part of the model that config.json describes`);
  }
}

/** A head that differs from the embedding is another model: transformers would not tie them. */
async function checkHead(dir: string, checkpoint: Checkpoint): Promise<void> {
  if (!checkpoint.tensors.some((info) => info.name === HEAD)) return;
  const [head, embedding] = [await checkpoint.read(HEAD), await checkpoint.read(EMBEDDING)];
  if (Buffer.compare(head, embedding) !== 0) {
    throw new ModelError(dir, `tensor "${HEAD}" differs from "${EMBEDDING}", expected the same values (a tied head)`);
  }
}

function firstNotFinite(values: Float32Array): number {
  let index = 0;
  while (index < values.length && Number.isFinite(values[index])) index++;
  return index;
}
