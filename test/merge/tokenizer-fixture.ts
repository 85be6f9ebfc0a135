// The models of test/fixtures/mergekit/tokenizer, and rows of plans computed from them.
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "safetensors-ts";
import type { TensorPlace } from "../../merge/plan.js";
import type { TokenizerModel, VocabularyRows } from "../../merge/tokenizer-plan.js";

export const FOLDER = fileURLToPath(new URL("../fixtures/mergekit/tokenizer", import.meta.url));

export const NAMES = ["base", "a", "b"];

/** As the recipes of the fixture call them. */
export const MODELS: readonly TokenizerModel[] = NAMES.map((name, i) => ({
  name: `models/${name}`,
  path: `${FOLDER}/models/${name}`,
  rows: [12, 11, 9][i]!,
}));

/** A tensor's place and values in each model; `file` is the model's index. */
export async function readTensor(name: string): Promise<{ places: TensorPlace[]; values: Float32Array[] }> {
  const places: TensorPlace[] = [];
  const values: Float32Array[] = [];
  for (const [file, { path }] of MODELS.entries()) {
    const checkpoint = await openCheckpoint(path);
    const { dtype, shape, position } = checkpoint.info(name);
    places.push({ file, position, dtype, shape });
    values.push(await checkpoint.readFloat32(name));
    await checkpoint.close();
  }
  return { places, values };
}

/** What a rows source says, in float64; `values` by file. */
export function computeRows(source: VocabularyRows, values: readonly Float32Array[]): number[][] {
  const { places, picks, tensors, rows, meanFrom } = source;
  const columns = places[0]!.shape[1]!;
  const mean = (of: readonly (readonly number[])[]) =>
    Array.from({ length: columns }, (_, i) => of.reduce((sum, row) => sum + row[i]!, 0) / Math.max(1, of.length));
  const gathered = Array.from({ length: picks.length - 1 }, (_, row) => {
    const chosen = Array.from({ length: picks[row + 1]! - picks[row]! }, (_, i) => picks[row]! + i);
    return mean(
      chosen.map((k) => {
        const start = rows[k]! * columns;
        return [...values[places[tensors[k]!]!.file]!.subarray(start, start + columns)];
      }),
    );
  });
  return gathered.map((row, r) => (r < meanFrom ? row : mean(gathered.slice(0, meanFrom))));
}
