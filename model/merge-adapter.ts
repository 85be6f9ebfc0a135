/** An adapter that becomes part of a model's weights while these are read. */
import { type FileTensor, openSafetensors, type SafetensorsFile, toFloat32 } from "safetensors-ts";
import { tf } from "tfjs-jit";
import type { Adapter } from "./adapter.js";
import { hostValues } from "./parameters.js";

export interface MergedAdapter {
  readonly file: SafetensorsFile;
  /** What stands in the place of the model's tensor of that name. */
  replaced(name: string): FileTensor | null;
  /** What is added to it. */
  changeOf(name: string): Promise<Change | null>;
}

/** scale B A of one matrix. */
export interface Change {
  /** Adds it to those of the matrix's values, taken row after row, that begin at `begin`. */
  addTo(values: Float32Array, begin: number): void;
  dispose(): void;
}

/** Close its file in the end. Values of the adapter that are not finite make those that are read so. */
export async function openMerged({ file: path, updates, replaced }: Adapter): Promise<MergedAdapter> {
  const file = await openSafetensors(path);
  const read = async ({ name, dtype, shape }: FileTensor) =>
    tf.tensor2d(toFloat32(await file.read(name), dtype), [shape[0]!, shape[1]!]);
  return {
    file,
    replaced: (name) => replaced.get(name) ?? null,
    changeOf: async (name) => {
      const update = updates.get(name);
      if (update === undefined) return null;
      const [a, b] = [await read(update.a), await read(update.b)];
      return changeBy(a, b, update.scale);
    },
  };
}

function changeBy(a: tf.Tensor2D, b: tf.Tensor2D, scale: number): Change {
  const [rank, columns] = a.shape;
  return {
    addTo: (values, begin) => {
      const first = Math.floor(begin / columns);
      const rows = Math.ceil((begin + values.length) / columns) - first;
      const change = hostValues(() => tf.matMul(b.slice([first, 0], [rows, rank]), a).mul(scale));
      const offset = begin - first * columns;
      for (let i = 0; i < values.length; i++) values[i]! += change[offset + i]!;
    },
    dispose: () => tf.dispose([a, b]),
  };
}
