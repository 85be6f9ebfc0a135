/** Rows of data as token ids of one model: what `heddle score`, `generate` and `eval` work on. Checked before anything runs. */
import { answerMessage, DataError, parseRows, place, type Row, type RowOptions, readData } from "../distill/data.js";
import { encodeCompletions, judgedIds, promptIds, promptWith } from "../distill/encode.js";
import { type Compute, type ComputeDtype, quantisationOf } from "../model/compute.js";
import type { ModelFolder } from "../model/load.js";
import type { ScoreRequest } from "../teacher/teacher.js";

export type EncodedRow = { readonly row: Row; readonly ids: readonly number[] };

/** A row, and for each choice the tokens of prompt and choice; those of the choice are ids[from], ids[from + 1], ... */
export type EncodedChoices = { readonly row: Row; readonly choices: readonly ScoreRequest[] };

/** How a model is loaded, as the flags say it. */
export type LoadOptions = {
  /** What its weights are kept and multiplied in. @default "float32" */
  readonly dtype?: ComputeDtype;
  /** Its matrices are kept in NF4, or in int8: at most one of the two. @default false */
  readonly loadIn4bit?: boolean;
  readonly loadIn8bit?: boolean;
};

/** A model folder, and the folder of an adapter on it, if any. */
export type ModelOptions = LoadOptions & { readonly model: string; readonly adapter?: string | null };

export const computeOf = ({ dtype = "float32", loadIn4bit, loadIn8bit }: LoadOptions): Partial<Compute> => ({
  dtype,
  quantised: quantisationOf(loadIn4bit, loadIn8bit),
});

/** What to read, and how it is read. */
export type DataOptions = RowOptions & {
  /** A file; where there is a `text`, what errors call that. */
  readonly data: string;
  /** The rows, where they are from no file. */
  readonly text?: string;
  /** Prompts are texts as they are, also where the model has a template. @default false */
  readonly ignoreChatTemplate?: boolean;
};

/** The rows' text, once it was read. */
export type Rows = DataOptions & { readonly text: string };

export const openRows = async (options: DataOptions): Promise<Rows> => ({
  ...options,
  text: options.text ?? (await readData(options.data)),
});

/**
 * What `score` scores: `ids` as they are; else the prompt as `generate` takes it, followed by the row's completion (or
 * the assistant's last message) and the token that ends it, as training sees them. A model for classification gets the
 * conversation as its template renders it to the end.
 * @throws DataError with FILE:LINE where a row is none, its ids do not fit the model, or are more than `maxTokens`
 */
export async function readSequences(folder: ModelFolder, rows: Rows, limit: Limit): Promise<EncodedRow[]> {
  const of = asTold(folder, rows);
  return encodeRows(folder, parse(rows), limit, async (row) => {
    if (folder.config.numLabels !== null) return judgedIds(of, row, rows);
    const prompt = await promptIds(of, row, rows);
    if (answerMessage(row) === undefined) return prompt;
    const [completion] = await encodeCompletions(of, [{ row, prompt, read: rows }], Infinity);
    return [...prompt, ...completion!];
  });
}

/**
 * What `generate` continues: `ids` as they are, or the conversation up to its last message of the user.
 * @throws DataError with FILE:LINE where a row is none, or its ids leave no room for a new token
 */
export async function readPrompts(folder: ModelFolder, rows: Rows): Promise<EncodedRow[]> {
  const of = asTold(folder, rows);
  const { maxPositionEmbeddings } = folder.config;
  const limit = { tokens: maxPositionEmbeddings - 1, why: contextLimit(maxPositionEmbeddings) };
  return encodeRows(folder, parse(rows), limit, (row) => promptIds(of, row, rows));
}

/**
 * The choices of each row after its prompt. As in lm-evaluation-harness, prompt and choice are encoded as one text, and the
 * choice is what comes after as many tokens as the prompt alone has; blanks at the prompt's end belong to the choice.
 * @throws DataError with FILE:LINE where a row has no choices, no answer among them, or does not fit the model
 */
export async function readChoices(folder: ModelFolder, rows: Rows): Promise<EncodedChoices[]> {
  const of = asTold(folder, rows);
  const { maxPositionEmbeddings } = folder.config;
  return eachRow(parse(rows), async (row) => {
    const where = row[place];
    if (row.choices === undefined)
      throw new DataError(`${where}: choices: expected a list of texts, as other rows have, got none`);
    const { prompt, continued } = await promptWith(of, row, row.choices as string[], rows);
    const from = prompt.length;
    if (from === 0) throw new DataError(`${where}: prompt: expected a token for the choices to follow, got none`);
    const choices = continued.map((ids, i) => {
      const which = `${where}: choices[${i}]`;
      if (ids.length <= from) throw new DataError(`${which}: expected a token of its own after the prompt, got none`);
      if (ids.length <= maxPositionEmbeddings) return { ids, from };
      const limit = `expected at most ${maxPositionEmbeddings} (${contextLimit(maxPositionEmbeddings)})`;
      throw new DataError(`${which}: has ${ids.length} tokens with its prompt, ${limit}`);
    });
    return { row, choices };
  });
}

/** Whether any of the rows has choices. */
export const hasChoices = (rows: Rows): boolean => parse(rows).some(({ choices }) => choices !== undefined);

/** Most tokens of a row, and why. */
export type Limit = { readonly tokens: number; readonly why: string };

export const contextLimit = (maxPositionEmbeddings: number): string =>
  `max_position_embeddings of the model is ${maxPositionEmbeddings}`;

function parse({ data, text, ignoreChatTemplate = false }: Rows): Row[] {
  const rows = parseRows(data, text, { acceptIds: true, acceptChoices: true });
  const conversation = ignoreChatTemplate ? rows.find(({ ids, messages }) => messages && !ids) : undefined;
  if (!conversation) return rows;
  throw new DataError(
    `${conversation[place]}: messages: expected a prompt, since --ignore-chat-template leaves nothing to render a conversation with`,
  );
}

/** A model whose template shall not be used has none. */
const asTold = (folder: ModelFolder, { ignoreChatTemplate = false }: DataOptions): ModelFolder =>
  ignoreChatTemplate ? { ...folder, chat: { ...folder.chat, hasTemplate: false } } : folder;

/** `encode` gets the rows that are no ids yet. */
const encodeRows = (
  { config }: ModelFolder,
  rows: readonly Row[],
  limit: Limit,
  encode: (row: Row) => Promise<readonly number[]>,
): Promise<EncodedRow[]> =>
  eachRow(rows, async (row) => {
    const ids = row.ids ?? (await encode(row));
    const wrong = ids.findIndex((id) => id >= config.vocabSize);
    if (wrong >= 0) {
      const range = `0 to ${config.vocabSize - 1} (vocab_size of the model)`;
      throw new DataError(`${row[place]}: ids[${wrong}]: expected a token id from ${range}, got ${ids[wrong]}`);
    }
    if (ids.length > limit.tokens) {
      throw new DataError(`${row[place]}: has ${ids.length} tokens, expected at most ${limit.tokens} (${limit.why})`);
    }
    return { row, ids };
  });

/** Encoded at a time: the tokenizer has threads of its own. */
const ROWS_AT_ONCE = 512;

async function eachRow<T>(rows: readonly Row[], encode: (row: Row) => Promise<T>): Promise<T[]> {
  const encoded: T[] = [];
  for (let begin = 0; begin < rows.length; begin += ROWS_AT_ONCE) {
    encoded.push(...(await Promise.all(rows.slice(begin, begin + ROWS_AT_ONCE).map(encode))));
  }
  return encoded;
}
