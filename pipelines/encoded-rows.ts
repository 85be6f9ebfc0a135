/** Rows of data as token ids of one model: what `heddle score`, `generate` and `eval` work on. Checked before anything runs. */
import { completionText, DataError, place, type Row, readRows, type SystemPolicy } from "../distill/data.js";
import { encodeCompletions, promptIds } from "../distill/encode.js";
import type { ComputeDtype } from "../model/compute.js";
import type { ModelFolder } from "../model/load.js";

export type EncodedRow = { readonly row: Row; readonly ids: readonly number[] };

/** A model folder, and what its weights are kept and multiplied in (float32 unless told otherwise). */
export type ModelOptions = { readonly model: string; readonly dtype?: ComputeDtype };

/** What to read, and what a system message leads to. */
export type DataOptions = { readonly data: string; readonly system: SystemPolicy };

/**
 * What `score` scores: `ids` as they are; else the prompt as `generate` takes it, followed by the row's completion (or
 * the assistant's last message) and the token that ends it, as training sees them.
 * @throws DataError with FILE:LINE where a row is none, or its ids do not fit the model
 */
export async function readSequences(folder: ModelFolder, { data, system }: DataOptions): Promise<EncodedRow[]> {
  const rows = await readRows(data, { acceptIds: true });
  return encodeRows(folder, rows, folder.config.maxPositionEmbeddings, async (row) => {
    const prompt = await promptIds(folder, row, system);
    if (completionText(row) === undefined) return prompt;
    const [completion] = await encodeCompletions(folder, [{ row, prompt }], Infinity);
    return [...prompt, ...completion!];
  });
}

/**
 * What `generate` continues: `ids` as they are, or the conversation up to its last message of the user.
 * @throws DataError with FILE:LINE where a row is none, or its ids leave no room for a new token
 */
export async function readPrompts(folder: ModelFolder, { data, system }: DataOptions): Promise<EncodedRow[]> {
  const rows = await readRows(data, { acceptIds: true });
  return encodeRows(folder, rows, folder.config.maxPositionEmbeddings - 1, (row) => promptIds(folder, row, system));
}

/** Encoded at a time: the tokenizer has threads of its own. */
const ROWS_AT_ONCE = 512;

/** `encode` gets the rows that are no ids yet. */
async function encodeRows(
  { config }: ModelFolder,
  rows: readonly Row[],
  maxTokens: number,
  encode: (row: Row) => Promise<readonly number[]>,
): Promise<EncodedRow[]> {
  const encodeOne = async (row: Row): Promise<EncodedRow> => {
    const ids = row.ids ?? (await encode(row));
    const wrong = ids.findIndex((id) => id >= config.vocabSize);
    if (wrong >= 0) {
      const range = `0 to ${config.vocabSize - 1} (vocab_size of the model)`;
      throw new DataError(`${row[place]}: ids[${wrong}]: expected a token id from ${range}, got ${ids[wrong]}`);
    }
    if (ids.length > maxTokens) {
      const context = `max_position_embeddings of the model is ${config.maxPositionEmbeddings}`;
      throw new DataError(`${row[place]}: has ${ids.length} tokens, expected at most ${maxTokens} (${context})`);
    }
    return { row, ids };
  };
  const encoded: EncodedRow[] = [];
  for (let begin = 0; begin < rows.length; begin += ROWS_AT_ONCE) {
    encoded.push(...(await Promise.all(rows.slice(begin, begin + ROWS_AT_ONCE).map(encodeOne))));
  }
  return encoded;
}
