import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { answerMessage, DataError, place, promptMessages, readRows } from "../../distill/data.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "heddle-data-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Writes the lines and reads them as rows; FILE stands for the path in what is expected. */
async function read(...lines: string[]) {
  return readRows(await write(lines));
}

async function write(lines: string[]): Promise<string> {
  const path = join(folder, "rows.jsonl");
  await writeFile(path, lines.join("\n"));
  return path;
}

async function complaint(...lines: string[]): Promise<string[]> {
  return mistakes(read(...lines));
}

async function mistakes(reading: Promise<unknown>): Promise<string[]> {
  const error = await reading.catch((error: unknown) => error);
  expect(error).toBeInstanceOf(DataError);
  return (error as Error).message.replaceAll(join(folder, "rows.jsonl"), "FILE").split("\n");
}

describe("readRows", () => {
  test("reads prompts and conversations, and keeps keys that it does not know", async () => {
    const rows = await read(
      '{"prompt": "1+1=", "answer": "2", "level": 3}\r',
      "",
      '{"messages": [{"role": "user", "content": "1+2="}], "completion": "3"}',
      "",
    );
    expect(JSON.parse(JSON.stringify(rows))).toEqual([
      { prompt: "1+1=", answer: "2", level: 3 },
      { messages: [{ role: "user", content: "1+2=" }], completion: "3" },
    ]);
  });

  test("notes where each row stands, blank lines counted", async () => {
    const rows = await read('{"prompt": "a"}', "", '{"prompt": "b"}');
    expect(rows.map((row) => row[place])).toEqual([
      `${join(folder, "rows.jsonl")}:1`,
      `${join(folder, "rows.jsonl")}:3`,
    ]);
  });

  test("reads the arithmetic prompts", async () => {
    const rows = await readRows("test/fixtures/arithmetic/test.jsonl");
    expect(rows.length).toBe(1329);
    expect(rows[0]).toMatchObject({ prompt: "(1/4)*80=", answer: "20" });
  });

  test.each([
    ['{"prompt": "1+1=', 'FILE:1: expected a JSON object, got {"prompt": "1+1='],
    ["[1]", "FILE:1: expected a JSON object, got [1]"],
    ["null", "FILE:1: expected a JSON object, got null"],
    ['{"text": "a", "label": 1}', 'FILE:1: expected "prompt" or "messages", got text, label'],
    ["{}", 'FILE:1: expected "prompt" or "messages", got no keys'],
    [
      '{"prompt": "a", "messages": [{"role": "user", "content": "a"}]}',
      'FILE:1: expected "prompt" or "messages", got both',
    ],
    ['{"prompt": 7}', "FILE:1: prompt: expected text, got 7"],
    [
      '{"prompt": [{"role": "user", "content": "a"}]}',
      'FILE:1: prompt: expected text, got a list (a conversation goes under "messages")',
    ],
    ['{"prompt": "a", "answer": 26}', "FILE:1: answer: expected text, got 26"],
    ['{"prompt": "a", "completion": null}', "FILE:1: completion: expected text, got null"],
    ['{"messages": "a"}', 'FILE:1: messages: expected a list of {role, content}, got "a"'],
    ['{"messages": ["a"]}', 'FILE:1: messages[0]: expected {role, content}, got "a"'],
    [
      '{"messages": [{"from": "human"}]}',
      "FILE:1: messages[0].role: expected one of system, user, assistant, got nothing",
    ],
    [
      '{"messages": [{"role": "user", "content": {}}]}',
      "FILE:1: messages[0].content: expected text or a list of its parts, got an object",
    ],
    [
      '{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}',
      "FILE:1: messages[1].role: expected system in the first message only, got it here",
    ],
    [
      '{"messages": [{"role": "assistant", "content": "a"}]}',
      "FILE:1: messages: expected a message of the user last, or before the assistant's last, got none there",
    ],
    [
      '{"messages": []}',
      "FILE:1: messages: expected a message of the user last, or before the assistant's last, got none there",
    ],
    [
      '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "completion": "c"}',
      "FILE:1: completion: expected none beside a last message of the assistant, got both",
    ],
    [
      '{"messages": [{"role": "user", "content": []}]}',
      "FILE:1: messages[0].content: expected at least one part, got an empty list",
    ],
    [
      '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]}',
      'FILE:1: messages[0].content[1]: expected {"type": "text", "text": ...}, got {"type":"image"}',
    ],
    [
      '{"messages": [{"role": "user", "content": ["a"]}]}',
      'FILE:1: messages[0].content[0]: expected {"type": "text", "text": ...}, got "a"',
    ],
  ])("refuses %s", async (line, message) => {
    expect(await complaint(line)).toEqual([message]);
  });

  test("lists the first ten mistakes and counts the rest", async () => {
    const message = (line: number) => `FILE:${line}: prompt: expected text, got 1`;
    expect(await complaint('{"prompt": "a"}', ...Array<string>(10).fill('{"prompt": 1}'))).toEqual(
      Array.from({ length: 10 }, (_, i) => message(i + 2)),
    );
    expect(await complaint(...Array<string>(12).fill('{"prompt": 1}'))).toEqual([
      ...Array.from({ length: 10 }, (_, i) => message(i + 1)),
      "... and 2 more mistakes",
    ]);
  });

  test("refuses an empty and a missing file", async () => {
    expect(await complaint("", "")).toEqual(["FILE: expected at least one row, got an empty file"]);
    await expect(readRows("missing.jsonl")).rejects.toThrow(/^missing.jsonl: cannot be read: ENOENT/);
  });
});

describe("readRows with acceptIds", () => {
  test("reads token ids, prompts and conversations", async () => {
    const lines = [
      '{"ids": [2, 5, 9], "answer": "x"}',
      '{"prompt": "a"}',
      '{"messages": [{"role":"user","content":"b"}]}',
    ];
    const rows = await readRows(await write(lines), { acceptIds: true });
    expect(JSON.parse(JSON.stringify(rows))).toEqual(lines.map((line) => JSON.parse(line)));
  });

  test("prefers token ids, so that a row which was scored is scored again as it was", async () => {
    const line = '{"prompt": "a", "ids": [2, 5], "logprobs": [null, -1.5]}';
    expect(await readRows(await write([line]), { acceptIds: true })).toMatchObject([JSON.parse(line)]);
  });

  test("otherwise ids are a key like any other, which the row that was scored carries along", async () => {
    expect(await read('{"prompt": "a", "ids": [2, 5]}')).toMatchObject([{ prompt: "a", ids: [2, 5] }]);
    expect(await complaint('{"ids": [2]}')).toEqual(['FILE:1: expected "prompt" or "messages", got ids']);
  });

  test.each([
    ["{}", 'FILE:1: expected "ids", "prompt" or "messages", got no keys'],
    ['{"text": "a"}', 'FILE:1: expected "ids", "prompt" or "messages", got text'],
    ['{"ids": "2 5"}', 'FILE:1: ids: expected a list of token ids, got "2 5"'],
    ['{"ids": []}', "FILE:1: ids: expected at least one token id, got an empty list"],
    ['{"ids": [2, -1]}', "FILE:1: ids[1]: expected a token id, got -1"],
    ['{"ids": [2, 5.5]}', "FILE:1: ids[1]: expected a token id, got 5.5"],
    ['{"ids": [[2, 5]]}', "FILE:1: ids[0]: expected a token id, got a list"],
  ])("refuses %s", async (line, message) => {
    expect(await mistakes(readRows(await write([line]), { acceptIds: true }))).toEqual([message]);
  });
});

describe("promptMessages", () => {
  const user = { role: "user", content: "1+1=" };
  const system = { role: "system", content: "Be brief." };

  test("makes one user message of a prompt", () => {
    expect(promptMessages({ prompt: "1+1=" }, "error", false)).toEqual([user]);
  });

  test("leaves out the assistant's last message, which is the completion", () => {
    const row = { messages: [user, { role: "assistant", content: "2" }] };
    expect(promptMessages(row, "error", false)).toEqual([user]);
    expect(answerMessage(row)).toEqual({ role: "assistant", content: "2" });
    expect(answerMessage({ prompt: "1+1=", completion: "3" })).toEqual({ role: "assistant", content: "3" });
    expect(answerMessage({ messages: [user] })).toBeUndefined();
  });

  test("keeps earlier turns of the assistant", () => {
    const messages = [user, { role: "assistant", content: "2" }, { role: "user", content: "+1=" }];
    expect(promptMessages({ messages }, "error", false)).toEqual(messages);
  });

  test("folds a system message into the first user message", () => {
    expect(promptMessages({ messages: [system, user] }, "fold", false)).toEqual([
      { role: "user", content: "Be brief.\n\n1+1=" },
    ]);
  });

  test("folds parts into one text", () => {
    const parts = (...texts: string[]) => texts.map((text) => ({ type: "text" as const, text }));
    const messages = [
      { ...system, content: parts("Be ", "brief.") },
      { ...user, content: parts("1+1=") },
    ];
    expect(promptMessages({ messages }, "fold", false)).toEqual([{ role: "user", content: "Be brief.\n\n1+1=" }]);
  });

  test("leaves a system message to a template that knows the role", () => {
    expect(promptMessages({ messages: [system, user] }, "error", true)).toEqual([system, user]);
    expect(promptMessages({ messages: [system, user] }, "drop", true)).toEqual([user]);
  });

  test("drops a system message", () => {
    expect(promptMessages({ messages: [system, user] }, "drop", false)).toEqual([user]);
  });

  test("refuses a system message unless told what to do with it", async () => {
    const [, row] = await read('{"prompt": "a"}', JSON.stringify({ messages: [system, user] }));
    expect(() => promptMessages(row!, "error", false)).toThrow(
      new DataError(
        `${join(folder, "rows.jsonl")}:2: messages[0]: expected no system message, since the model's chat template knows no such role; ` +
          "set `system: fold` to put its text before the user's, or `system: drop` to leave it out",
      ),
    );
  });
});
