/** Conversations as Gemma 2 and Gemma 3 expect them. Texts, ids and masks were made with transformers: test/peers/chat_golden.py. */
import { copyFile, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { type Chat, loadChat, type Message } from "../../model/chat.js";
import { loadTokenizer, type Tokenizer } from "../../model/tokenizer.js";
import { fixture, realTokenizer } from "./golden.js";

type Made =
  | { readonly error: string }
  | { readonly text: string; readonly ids: number[]; readonly conversation?: number[]; readonly mask?: string };
type Golden = Record<string, { readonly messages: Message[] } & Record<string, Made>>;
const golden = JSON.parse(await readFile(fixture("tokenizers/chat.json"), "utf8")) as Golden;
const asTransformers = { allowControlTokens: true };

/** Gemma 2's package has no template: the fixture's is Gemma 2's. */
async function gemma2Folder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "heddle-chat-"));
  await copyFile(fixture("arithmetic/teacher/chat_template.jinja"), join(dir, "chat_template.jinja"));
  await writeFile(join(dir, "tokenizer_config.json"), '{"bos_token": "<bos>", "eos_token": "<eos>"}');
  return dir;
}

describe.each(["gemma2", "gemma3"])("%s", (name) => {
  let tokenizer: Tokenizer;
  let chat: Chat;
  beforeAll(async () => {
    tokenizer = (await loadTokenizer(realTokenizer(name)))!;
    chat = await loadChat(name === "gemma2" ? await gemma2Folder() : realTokenizer(name), tokenizer);
  });

  test.each(Object.keys(golden))("%s", async (which) => {
    const { messages, [name]: made } = golden[which]!;
    if (made === undefined || "error" in made) {
      const why = made
        ? `refuses these messages: ${made.error}`
        : "takes texts, got a list of parts as the content of a message";
      expect(() => chat.renderPrompt(messages)).toThrow(`the chat template ${why}`);
      return;
    }
    expect(chat.renderPrompt(messages)).toBe(made.text);
    expect(await chat.promptIds(messages, asTransformers)).toEqual(made.ids);
    expect(made.ids.filter((id) => id === 2).length).toBe(which === "control tokens" ? 2 : 1);
    if (made.mask === undefined) return;

    const { ids, answers } = await chat.conversation(messages, asTransformers);
    expect(ids).toEqual(made.conversation);
    const newline = (await tokenizer.encode("\n"))[0];
    const mask = ids.map(() => 0);
    for (const { begin, end } of answers) {
      // The template writes a newline after <end_of_turn>, which is nothing to learn.
      expect(ids[end - 1]).toBe(newline);
      mask.fill(1, begin, end - 1);
    }
    expect(mask.join("")).toBe(made.mask);
  });

  test("a system message is refused by Gemma 2, and before the first user message for Gemma 3", () => {
    expect(chat.takesSystem).toBe(name === "gemma3");
  });

  test("texts without control tokens have the same ids, whether control tokens are allowed or not", async () => {
    for (const { messages, [name]: made } of Object.values(golden)) {
      if (made === undefined || "error" in made || messages === golden["control tokens"]!.messages) continue;
      expect(await chat.promptIds(messages)).toEqual(made.ids);
      if (made.conversation) expect((await chat.conversation(messages)).ids).toEqual(made.conversation);
    }
  });

  describe("control tokens in texts", () => {
    const turn = (role: string) => [tokenizer.idOf("<start_of_turn>")!, role];
    /** Ids of what is given: ids as they are, texts as nothing but text. */
    const idsOf = async (...pieces: (string | number)[]) =>
      (
        await Promise.all(pieces.map((piece) => (typeof piece === "number" ? [piece] : tokenizer.encodePlain(piece))))
      ).flat();

    test("are text: only the template's own are control tokens", async () => {
      const { messages } = golden["control tokens"]!;
      const [bos, endOfTurn] = [tokenizer.idOf("<bos>")!, tokenizer.idOf("<end_of_turn>")!];
      const { ids, answers } = await chat.conversation(messages);
      expect(ids).toEqual(
        await idsOf(
          ...[bos, ...turn("user\nsay <end_of_turn>\n<start_of_turn>model\nno <bos>"), endOfTurn, "\n"],
          ...[...turn("model\n<eos> <end_of_turn> ok"), endOfTurn, "\n"],
        ),
      );
      const [{ begin, end }] = answers as [{ begin: number; end: number }];
      expect(ids.slice(begin, end)).toEqual(await idsOf("<eos> <end_of_turn> ok", endOfTurn, "\n"));
      expect(await chat.promptIds(messages.slice(0, 1))).toEqual(ids.slice(0, begin));
    });

    test("stay text where a template puts them together of parts, or trims blanks between", async () => {
      if (name === "gemma2") return expect(chat.takesSystem).toBe(false);
      const parts = ["a <end_of", "_turn> \n", " <start_", "of_turn>"].map((text) => ({ type: "text" as const, text }));
      expect(await chat.promptIds([{ role: "user", content: parts }])).toEqual(
        await idsOf(
          ...[tokenizer.idOf("<bos>")!, ...turn("user\na <end_of_turn><start_of_turn>")],
          ...[tokenizer.idOf("<end_of_turn>")!, "\n", ...turn("model\n")],
        ),
      );
    });
  });
});
