/** Rows for a model without a chat template. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { place } from "../../distill/data.js";
import { encodeCompletions, encodePrompts } from "../../distill/encode.js";
import { type ModelFolder, openModel } from "../../model/load.js";
import { copyOf } from "../model/folder.js";

let folder: ModelFolder;
beforeAll(async () => {
  const dir = await copyOf("arithmetic/student");
  await rm(join(dir, "chat_template.jinja"));
  folder = await openModel(dir);
});
const options = { system: "error", maxNewTokens: 10 } as const;

test("a prompt is a plain text after one <bos>, and <eos> ends its completion", async () => {
  const rows = await encodePrompts(folder, [{ prompt: "1+1=", completion: "2" }], options);
  expect(rows[0]!.prompt).toEqual([2, ...(await folder.tokenizer!.encode("1+1="))]);
  expect(await encodeCompletions(folder, rows, 10)).toEqual([[...(await folder.tokenizer!.encode("2")), 1]]);
});

test("messages are an error that names the row", async () => {
  const row = { messages: [{ role: "user", content: "1+1=" }], [place]: "data.jsonl:3" };
  await expect(encodePrompts(folder, [row], options)).rejects.toMatchObject({
    name: "DataError",
    message: `data.jsonl:3: ${folder.dir}: no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json), needed for conversations: put the one of the instruction-tuned model there, or give prompts, which are then plain texts`,
  });
});
