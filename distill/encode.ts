/** Rows of data as token ids: prompts and completions, and the sizes of batches of them. Needs no TensorFlow. */

import { type Sizes, sizesOf } from "../model/batch.js";
import { ModelError } from "../model/errors.js";
import type { ModelFolder } from "../model/load.js";
import { completionText, DataError, place, promptMessages, type Row, type SystemPolicy } from "./data.js";

/** A row as token ids. */
export type EncodedRow = { readonly row: Row; readonly prompt: readonly number[] };

/**
 * The token ids of a row's prompt, rendered by the model's chat template. Where the folder has none a `prompt` is a
 * plain text; `messages` cannot be rendered then.
 * @throws DataError where the model can do nothing with the row
 */
export async function promptIds({ chat }: ModelFolder, row: Row, system: SystemPolicy): Promise<number[]> {
  try {
    if (row.prompt !== undefined && !chat.hasTemplate) return await chat.textIds(row.prompt);
    return await chat.promptIds(promptMessages(row, system));
  } catch (error) {
    throw asDataError(row, error);
  }
}

/** The same prompt as text. */
export function promptText({ chat }: ModelFolder, row: Row, system: SystemPolicy): string {
  try {
    if (row.prompt !== undefined && !chat.hasTemplate) return row.prompt;
    return chat.renderPrompt(promptMessages(row, system));
  } catch (error) {
    throw asDataError(row, error);
  }
}

/** What the model says of a row, with the row's place. */
const asDataError = (row: Row, error: unknown): unknown =>
  error instanceof ModelError ? new DataError(`${row[place] ?? "row"}: ${error.message}`, { cause: error }) : error;

/**
 * The rows' prompts.
 * @throws DataError where a prompt and a completion of `maxNewTokens` do not fit into the model's context
 */
export function encodePrompts(
  folder: ModelFolder,
  rows: readonly Row[],
  { system, maxNewTokens }: { readonly system: SystemPolicy; readonly maxNewTokens: number },
): Promise<EncodedRow[]> {
  const { maxPositionEmbeddings } = folder.config;
  return Promise.all(
    rows.map(async (row) => {
      const prompt = await promptIds(folder, row, system);
      if (prompt.length + maxNewTokens > maxPositionEmbeddings)
        throw new DataError(
          `${row[place] ?? "row"}: the prompt has ${prompt.length} tokens; with max_new_tokens ${maxNewTokens} ` +
            `expected at most ${maxPositionEmbeddings}, the model's max_position_embeddings`,
        );
      return { row, prompt };
    }),
  );
}

/** The rows' completions as token ids, ended as a chat turn ends, or a plain text, and cut off at `maxNewTokens`. */
export function encodeCompletions(
  folder: ModelFolder,
  rows: readonly EncodedRow[],
  maxNewTokens: number,
): Promise<number[][]> {
  const endOfTurn = folder.chat.hasTemplate ? folder.tokenizer?.idOf("<end_of_turn>") : null;
  const stop = endOfTurn ?? folder.config.eosTokenIds[0]!;
  return Promise.all(
    rows.map(async ({ row }) => {
      const text = completionText(row);
      if (text === undefined)
        throw new DataError(`${row[place] ?? "row"}: completion: expected the text to learn, got none`);
      return [...(await folder.tokenizer!.encode(text)), stop].slice(0, maxNewTokens);
    }),
  );
}

/** The sizes of batches drawn from these rows. */
export const sizesOfRows = (
  rows: readonly EncodedRow[],
  shape: Pick<Sizes, "rows" | "samples" | "maxNewTokens">,
): Sizes =>
  sizesOf(
    rows.map(({ prompt }) => prompt),
    shape,
  );

/** Mean length of completions in tokens. */
export const meanLength = (completions: readonly (readonly number[])[]): number =>
  completions.reduce((sum, { length }) => sum + length, 0) / completions.length;
