/** Training and evaluation data: JSONL, one row a line, in the shapes that TRL's data sets have. */
import { readFile } from "node:fs/promises";
import type { ContentOptions, Message } from "../model/chat.js";

/** What a system message leads to. "error" is one for models that know no such role (Gemma 2), else it is rendered. */
export type SystemPolicy = "error" | "fold" | "drop";

/** How the messages of rows are read. */
export type RowOptions = ContentOptions & { readonly system: SystemPolicy };

/** Where a row stands, as FILE:LINE. A symbol, so that a row written out again holds its own keys only. */
export const place = Symbol("place");

/** One row. It has `ids`, or either `prompt` or `messages`; keys that are not named here are kept as they are. */
export type Row = {
  /** The one user message. */
  prompt?: string;
  /** A conversation. Where the assistant has the last word, that message is the row's completion. */
  messages?: Message[];
  /** Token ids, used as they are whatever else the row holds. Only where readRows was told to accept them. */
  ids?: number[];
  /** What a completion must equal, trimmed, to be right. */
  answer?: string;
  /** The text to learn in supervised fine-tuning. */
  completion?: string;
  [place]?: string;
  [key: string]: unknown;
};

/** A data file that cannot be used. The message lists the mistakes, each as FILE:LINE: KEY: expected X, got Y. */
export class DataError extends Error {
  override readonly name = "DataError";
}

const maxListed = 10;
const roles = ["system", "user", "assistant"];

/** The text of a data file. */
export const readData = (path: string): Promise<string> =>
  readFile(path, "utf8").catch((error: Error) => {
    throw new DataError(`${path}: cannot be read: ${error.message}`);
  });

/** What is more than an unknown key: both are for models that are used, not for training. */
export type Accepted = {
  /** `ids`. */
  readonly acceptIds?: boolean;
  /** `choices`, a list of texts, of which `answer` is one or says which. */
  readonly acceptChoices?: boolean;
};

/**
 * Reads a JSONL file whole.
 * @throws DataError with the first 10 mistakes, or where the file is missing or holds no row
 */
export const readRows = async (path: string, accepted: Accepted = {}): Promise<Row[]> =>
  parseRows(path, await readData(path), accepted);

/**
 * The rows of a JSONL text; `path` says in errors where it is from. Blank lines are skipped, but count as lines.
 * @throws DataError with the first 10 mistakes, or where there is no row
 */
export function parseRows(path: string, text: string, accepted: Accepted = {}): Row[] {
  const rows: Row[] = [];
  const mistakes: string[] = [];
  for (const [index, line] of text
    .replace(/^\uFEFF/, "")
    .split("\n")
    .entries()) {
    if (line.trim() === "") continue;
    const where = `${path}:${index + 1}`;
    const row = parseObject(line);
    const found =
      row === undefined ? [`expected a JSON object, got ${shorten(line.trim())}`] : rowMistakes(row, accepted);
    mistakes.push(...found.map((mistake) => `${where}: ${mistake}`));
    rows.push({ ...row, [place]: where });
  }
  if (mistakes.length > maxListed) {
    const more = mistakes.length - maxListed;
    mistakes.splice(maxListed, more, `... and ${more} more ${more === 1 ? "mistake" : "mistakes"}`);
  }
  if (mistakes.length > 0) throw new DataError(mistakes.join("\n"));
  if (rows.length === 0) throw new DataError(`${path}: expected at least one row, got an empty file`);
  return rows;
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function rowMistakes(row: Record<string, unknown>, { acceptIds = false, acceptChoices = false }: Accepted): string[] {
  const hasChoices = acceptChoices && row.choices !== undefined;
  if (acceptIds && row.ids !== undefined && !hasChoices) return idsMistakes(row.ids);
  const mistakes = hasChoices ? choicesMistakes(row) : [];
  for (const key of hasChoices ? ["prompt"] : ["prompt", "answer", "completion"]) {
    const value = row[key];
    if (value === undefined || typeof value === "string") continue;
    const hint = Array.isArray(value) && key === "prompt" ? ` (a conversation goes under "messages")` : "";
    mistakes.push(`${key}: expected text, got ${describe(value)}${hint}`);
  }
  if (row.messages !== undefined) mistakes.push(...messagesMistakes(row.messages));
  if (row.prompt === undefined && row.messages === undefined) {
    const expected = `${acceptIds && !hasChoices ? '"ids", ' : ""}"prompt" or "messages"`;
    mistakes.push(`expected ${expected}, got ${Object.keys(row).join(", ") || "no keys"}`);
  } else if (row.prompt !== undefined && row.messages !== undefined) {
    mistakes.push(`expected "prompt" or "messages", got both`);
  } else if (mistakes.length === 0 && row.completion !== undefined && lastWord(row as Row) !== undefined) {
    mistakes.push(`completion: expected none beside a last message of the assistant, got both`);
  }
  return mistakes;
}

function idsMistakes(ids: unknown): string[] {
  if (!Array.isArray(ids)) return [`ids: expected a list of token ids, got ${describe(ids)}`];
  if (ids.length === 0) return ["ids: expected at least one token id, got an empty list"];
  const wrong = ids.findIndex((id) => !Number.isInteger(id) || id < 0);
  return wrong < 0 ? [] : [`ids[${wrong}]: expected a token id, got ${describe(ids[wrong])}`];
}

function choicesMistakes({ choices, answer }: Record<string, unknown>): string[] {
  if (!Array.isArray(choices)) return [`choices: expected a list of texts, got ${describe(choices)}`];
  const wrong = choices.findIndex((choice) => typeof choice !== "string" || choice === "");
  if (wrong >= 0)
    return [`choices[${wrong}]: expected a text of at least one character, got ${describe(choices[wrong])}`];
  if (choices.length < 2) return [`choices: expected two or more, got ${choices.length}`];
  const isIndex = Number.isInteger(answer) && (answer as number) >= 0 && (answer as number) < choices.length;
  if (isIndex || choices.includes(answer)) return [];
  return [`answer: expected one of the choices, or its index from 0 to ${choices.length - 1}, got ${describe(answer)}`];
}

/** The conversation must hold a prompt: it ends with a message of the user, or with the assistant's answer to one. */
function messagesMistakes(messages: unknown): string[] {
  if (!Array.isArray(messages)) return [`messages: expected a list of {role, content}, got ${describe(messages)}`];
  const mistakes = messages.flatMap((message: unknown, i) => messageMistakes(message, i));
  if (mistakes.length > 0) return mistakes;
  const turns = (messages as Message[]).map(({ role }) => role);
  if (turns.at(-1) === "assistant") turns.pop();
  if (turns.at(-1) === "user") return [];
  return ["messages: expected a message of the user last, or before the assistant's last, got none there"];
}

function messageMistakes(message: unknown, i: number): string[] {
  if (!isObject(message)) return [`messages[${i}]: expected {role, content}, got ${describe(message)}`];
  const { role, content } = message;
  if (typeof role !== "string" || !roles.includes(role)) {
    return [`messages[${i}].role: expected one of ${roles.join(", ")}, got ${describe(role)}`];
  }
  const mistakes = contentMistakes(content, `messages[${i}].content`);
  if (mistakes.length > 0) return mistakes;
  if (role === "system" && i > 0)
    return [`messages[${i}].role: expected system in the first message only, got it here`];
  return [];
}

function contentMistakes(content: unknown, where: string): string[] {
  if (typeof content === "string") return [];
  if (!Array.isArray(content)) return [`${where}: expected text or a list of its parts, got ${describe(content)}`];
  if (content.length === 0) return [`${where}: expected at least one part, got an empty list`];
  const isPart = (part: unknown) => isObject(part) && part.type === "text" && typeof part.text === "string";
  const wrong = content.findIndex((part) => !isPart(part));
  if (wrong < 0) return [];
  const part: unknown = content[wrong];
  const got = isObject(part) ? shorten(JSON.stringify(part)) : describe(part);
  return [`${where}[${wrong}]: expected {"type": "text", "text": ...}, got ${got}`];
}

/** The message that supervised fine-tuning learns: `completion`, or the assistant's last. */
export function answerMessage(row: Row): Message | undefined {
  if (row.completion !== undefined) return { role: "assistant", content: row.completion };
  return lastWord(row);
}

function lastWord(row: Row): Message | undefined {
  const last = row.messages?.at(-1);
  return last?.role === "assistant" ? last : undefined;
}

/** @throws DataError where the row has none */
export function answerOf(row: Row): string {
  if (row.answer === undefined)
    throw new DataError(`${row[place] ?? "row"}: answer: expected the text to match, got none`);
  return row.answer;
}

/**
 * The conversation to prompt the model with: everything up to the last message of the user. A system message is left to
 * a template that `takesSystem` or else refused (error), put before the first user message with an empty line between
 * (fold), or left out (drop).
 */
export function promptMessages(row: Row, system: SystemPolicy, takesSystem: boolean): readonly Message[] {
  const all = row.messages ?? [{ role: "user", content: row.prompt as string }];
  const messages = lastWord(row) === undefined ? all : all.slice(0, -1);
  const [first, second, ...rest] = messages;
  if (first?.role !== "system") return messages;
  switch (system) {
    case "error":
      if (takesSystem) return messages;
      throw new DataError(
        `${row[place] ?? "row"}: messages[0]: expected no system message, since the model's chat template knows no such role; ` +
          "set `system: fold` to put its text before the user's, or `system: drop` to leave it out",
      );
    case "drop":
      return messages.slice(1);
    case "fold":
      return [{ ...second!, content: `${textOf(first)}\n\n${textOf(second!)}` }, ...rest];
  }
}

/** The text of a message. */
export const textOf = ({ content }: Message): string =>
  typeof content === "string" ? content : content.map(({ text }) => text).join("");

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  return isObject(value) ? "an object" : shorten(JSON.stringify(value));
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
