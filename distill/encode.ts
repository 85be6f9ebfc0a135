/** Rows of data as token ids: prompts and completions, and the sizes of batches of them. Needs no TensorFlow. */

import { type Sizes, sizesOf } from "../model/batch.js";
import type { Conversation, Message } from "../model/chat.js";
import { ModelError } from "../model/errors.js";
import type { ModelFolder } from "../model/load.js";
import { answerMessage, DataError, place, promptMessages, type Row, type RowOptions, textOf } from "./data.js";

/** A row as token ids, and how its messages were read. */
export type EncodedRow = { readonly row: Row; readonly prompt: readonly number[]; readonly read: RowOptions };

/** What is learned of a row: those tokens of the completion that count. */
export type Answered = {
  readonly prompt: readonly number[];
  readonly completion: readonly number[];
  readonly counted: readonly boolean[];
};

/**
 * The token ids of a row's prompt, rendered by the model's chat template. Where the folder has none a `prompt` is a
 * plain text; `messages` cannot be rendered then.
 * @throws DataError where the model can do nothing with the row
 */
export async function promptIds({ chat }: ModelFolder, row: Row, read: RowOptions): Promise<number[]> {
  try {
    if (row.prompt !== undefined && !chat.hasTemplate) return await chat.textIds(row.prompt);
    return await chat.promptIds(promptMessages(row, read.system, chat.takesSystem), read);
  } catch (error) {
    throw asDataError(row, error);
  }
}

/** The token ids of the prompt without blanks at its end, and of all of it followed by each of the texts, as one text. */
export async function promptWith(
  { chat }: ModelFolder,
  row: Row,
  texts: readonly string[],
  read: RowOptions,
): Promise<{ prompt: number[]; continued: number[][] }> {
  try {
    const { prompt } = row;
    if (prompt === undefined || chat.hasTemplate)
      return await chat.promptWith(promptMessages(row, read.system, chat.takesSystem), texts, read);
    return {
      prompt: await chat.textIds(prompt.trimEnd()),
      continued: await Promise.all(texts.map((text) => chat.textIds(prompt + text))),
    };
  } catch (error) {
    throw asDataError(row, error);
  }
}

/**
 * The token ids of what a model for classification judges: the row's conversation with its answer, or another in its place, as
 * the chat template renders it to the end, which is what transformers' apply_chat_template gives. Where the folder has
 * no template prompt and answer are one text.
 * @throws DataError where the model can do nothing with the row
 */
export async function judgedIds(
  { chat }: ModelFolder,
  row: Row,
  read: RowOptions,
  answer: Message | undefined = answerMessage(row),
): Promise<number[]> {
  try {
    if (row.prompt !== undefined && !chat.hasTemplate)
      return await chat.textIds(row.prompt + (answer === undefined ? "" : textOf(answer)));
    const messages = promptMessages(row, read.system, chat.takesSystem);
    return await chat.wholeIds(answer === undefined ? messages : [...messages, answer], read);
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
  { maxNewTokens, ...read }: RowOptions & { readonly maxNewTokens: number },
): Promise<EncodedRow[]> {
  const { maxPositionEmbeddings } = folder.config;
  return Promise.all(
    rows.map(async (row) => {
      const prompt = await promptIds(folder, row, read);
      if (prompt.length + maxNewTokens > maxPositionEmbeddings)
        throw new DataError(
          `${row[place] ?? "row"}: the prompt has ${prompt.length} tokens; with max_new_tokens ${maxNewTokens} ` +
            `expected at most ${maxPositionEmbeddings}, the model's max_position_embeddings`,
        );
      return { row, prompt, read };
    }),
  );
}

/** The rows' completions as token ids, ended as a chat turn ends, or a plain text, and cut off at `maxNewTokens`. */
export const encodeCompletions = (
  folder: ModelFolder,
  rows: readonly EncodedRow[],
  maxNewTokens: number,
): Promise<number[][]> =>
  Promise.all(
    rows.map(async (row) => {
      const { ids, answers } = await answered(folder, row);
      const { begin } = answers.at(-1)!;
      return ids.slice(begin, begin + maxNewTokens);
    }),
  );

/**
 * The rows as conversations of which every answer counts, up to `maxNewTokens` of its tokens. The prompt ends where the
 * first answer begins, and the completion with the last token that counts.
 */
export const encodeConversations = (
  folder: ModelFolder,
  rows: readonly EncodedRow[],
  maxNewTokens: number,
): Promise<Answered[]> =>
  Promise.all(
    rows.map(async (row) => {
      const { ids, answers } = await answered(folder, row);
      const counted = ids.map(() => false);
      for (const { begin, end } of answers) counted.fill(true, begin, Math.min(end, begin + maxNewTokens));
      const [begin, end] = [answers[0]!.begin, counted.lastIndexOf(true) + 1];
      return { prompt: ids.slice(0, begin), completion: ids.slice(begin, end), counted: counted.slice(begin, end) };
    }),
  );

/** A row's conversation with its answer, each answer up to its stop token; the last one gets one where it has none. */
async function answered(folder: ModelFolder, { row, prompt, read }: EncodedRow): Promise<Conversation> {
  const { chat, tokenizer, config, stopIds } = folder;
  const answer = answerMessage(row);
  if (answer === undefined)
    throw new DataError(`${row[place] ?? "row"}: completion: expected the text to learn, got none`);
  if (!chat.hasTemplate) {
    const ids = [...prompt, ...(await tokenizer!.encode(answer.content as string)), config.eosTokenIds[0]!];
    return { ids, answers: [{ begin: prompt.length, end: ids.length }] };
  }
  const messages = [...promptMessages(row, read.system, chat.takesSystem), answer];
  const { ids, answers } = await chat.conversation(messages, read).catch((error: unknown) => {
    throw asDataError(row, error);
  });
  const ended = answers.map(({ begin, end }) => {
    const stop = ids.slice(begin, end).findLastIndex((id) => stopIds.includes(id));
    return { begin, end: stop < 0 ? end : begin + stop + 1 };
  });
  const { end } = ended.at(-1)!;
  if (stopIds.includes(ids[end - 1]!)) return { ids: ids.slice(0, end), answers: ended };
  const stop = tokenizer!.idOf("<end_of_turn>") ?? config.eosTokenIds[0]!;
  return { ids: [...ids, stop], answers: [...ended.slice(0, -1), { ...ended.at(-1)!, end: end + 1 }] };
}

/** The sizes of batches drawn from these rows. */
export const sizesOfRows = (
  rows: readonly Pick<EncodedRow, "prompt">[],
  shape: Pick<Sizes, "rows" | "samples" | "maxNewTokens">,
): Sizes =>
  sizesOf(
    rows.map(({ prompt }) => prompt),
    shape,
  );

/** The sizes of batches of conversations, whose completions hold what the user says between the answers. */
export const sizesOfConversations = (
  conversations: readonly Answered[],
  { rows, maxNewTokens }: Pick<Sizes, "rows" | "maxNewTokens">,
): Sizes => {
  const longest = conversations.reduce((most, { completion }) => Math.max(most, completion.length), maxNewTokens);
  return sizesOfRows(conversations, { rows, samples: 1, maxNewTokens: longest });
};

/** Mean length of completions in tokens. */
export const meanLength = (completions: readonly (readonly number[])[]): number =>
  completions.reduce((sum, { length }) => sum + length, 0) / completions.length;
