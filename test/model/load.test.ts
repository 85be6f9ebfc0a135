/** A model folder without its weights: tokenizer, chat template, stop tokens. Ids and texts were made with transformers 5.23. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { withOneBos } from "../../model/chat.js";
import { ModelError } from "../../model/errors.js";
import { openModel } from "../../model/load.js";
import { copyOf, setKeys } from "./folder.js";
import { fixture } from "./golden.js";

const teacher = fixture("arithmetic/teacher");
const user = (content: string) => ({ role: "user", content });

describe("the tokenizer", () => {
  test("encodes without adding tokens and decodes without special ones, as transformers does", async () => {
    const { tokenizer } = await openModel(teacher);
    const text = "Grüße, 世界 🙂!  two  spaces\n";
    const ids = [
      303, 346, 202, 195, 202, 166, 333, 276, 264, 235, 191, 157, 238, 156, 147, 264, 247, 166, 160, 137, 265, 264, 264,
      348, 351, 343, 264, 264, 347, 344, 329, 331, 333, 347, 263,
    ];
    expect(await tokenizer!.encode(text)).toEqual(ids);
    expect(await tokenizer!.decode(ids)).toBe(text);
    expect(await tokenizer!.encode("<eos> 7")).toEqual([1, 264, 287]);
    expect(await tokenizer!.decode([1, 264, 287])).toBe(" 7");
  });

  test("knows its vocabulary", async () => {
    const { tokenizer } = await openModel(teacher);
    expect(tokenizer!.vocabSize).toBe(359);
    expect(tokenizer!.idOf("<end_of_turn>")).toBe(6);
    expect(tokenizer!.idOf("<nothing>")).toBeNull();
  });

  test("of another model gives ids that the model's embedding has not", async () => {
    const dir = await copyOf("arithmetic/teacher");
    await setKeys(join(dir, "config.json"), { vocab_size: 280 });
    const { tokenizer, chat } = await openModel(dir);
    const problem = (token: string, id: number) =>
      new ModelError(
        join(dir, "tokenizer.json"),
        `"${token}" has the id ${id}, expected less than 280 (vocab_size of the model): is it another model's tokenizer?`,
      );
    expect(await tokenizer!.encode("<bos>+")).toEqual([2, 275]);
    await expect(tokenizer!.encode("12")).rejects.toThrow(problem("1", 281));
    await expect(chat.promptIds([user("2")])).rejects.toThrow("has the id");
  });

  test.each([
    ["another JSON", () => "{}", "Model missing. at line 1 column 2"],
    ["no JSON", () => "<html>", "expected value at line 1 column 1"],
    ["cut short", (whole: string) => whole.slice(0, 100), "EOF while parsing a value at line 7 column 11"],
    [
      "of a kind that is not known",
      (whole: string) => whole.replace('"BPE"', '"XPE"'),
      "data did not match any variant of untagged enum ModelUntagged at line 528 column 3",
    ],
  ])("says which file is no tokenizer, and why: %s", async (_, change, why) => {
    const dir = await copyOf("arithmetic/teacher");
    const path = join(dir, "tokenizer.json");
    await writeFile(path, change(await readFile(path, "utf8")));
    await expect(openModel(dir)).rejects.toThrow(
      new ModelError(path, `not a tokenizer (${why}), expected a tokenizer.json of Hugging Face: get it again`),
    );
  });
});

describe("the chat template", () => {
  test("renders a turn up to the model's answer, with one <bos>", async () => {
    const { chat } = await openModel(teacher);
    const messages = [user(" 12*(3+4)= ")];
    expect(chat.renderPrompt(messages)).toBe(
      "<bos><start_of_turn>user\n12*(3+4)=<end_of_turn>\n<start_of_turn>model\n",
    );
    expect(await chat.promptIds(messages)).toEqual([
      2, 5, 349, 347, 333, 346, 263, 281, 282, 274, 272, 283, 275, 284, 273, 293, 6, 263, 5, 341, 343, 332, 333, 340,
      263,
    ]);
  });

  test("renders several turns", async () => {
    const { chat } = await openModel(teacher);
    expect(chat.renderPrompt([user("1+1="), { role: "assistant", content: "2" }, user("+3=")])).toBe(
      "<bos><start_of_turn>user\n1+1=<end_of_turn>\n<start_of_turn>model\n2<end_of_turn>\n" +
        "<start_of_turn>user\n+3=<end_of_turn>\n<start_of_turn>model\n",
    );
  });

  test("passes on what the template raises", async () => {
    const { chat } = await openModel(teacher);
    const path = join(teacher, "chat_template.jinja");
    const refuses = "the chat template refuses these messages";
    expect(() => chat.renderPrompt([{ role: "system", content: "Be brief." }, user("1+1=")])).toThrow(
      new ModelError(path, `${refuses}: System role not supported`),
    );
    expect(() => chat.renderPrompt([user("1+1="), user("2+2=")])).toThrow(
      new ModelError(path, `${refuses}: Conversation roles must alternate user/assistant/user/assistant/...`),
    );
  });

  test.each<[string, unknown]>([
    ["a string", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"],
    [
      "the list's default",
      [
        { name: "tool_use", template: "no" },
        { name: "default", template: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}" },
      ],
    ],
  ])("is taken from tokenizer_config.json where it is %s", async (_, chat_template) => {
    const dir = await copyOf("arithmetic/teacher");
    await rm(join(dir, "chat_template.jinja"));
    await setKeys(join(dir, "tokenizer_config.json"), {
      chat_template,
      eos_token: { content: "<eos>", special: true },
    });
    const { chat } = await openModel(dir);
    expect(chat.renderPrompt([user("7")])).toBe("<bos>7<eos>");
    expect(await chat.promptIds([user("7")])).toEqual([2, 287, 1]);
  });

  test("that is missing, unnamed or broken is an error that says so", async () => {
    const dir = await copyOf("arithmetic/teacher");
    const file = join(dir, "chat_template.jinja");
    await writeFile(file, "{% if %}");
    await expect(openModel(dir)).rejects.toThrow(`${file}: the chat template does not parse: `);

    await rm(file);
    const { chat } = await openModel(dir);
    expect(() => chat.renderPrompt([user("7")])).toThrow(
      new ModelError(
        dir,
        'no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json), needed for conversations: put the one of the instruction-tuned model there, or give prompts, which are then plain texts',
      ),
    );
    expect(await chat.textIds("7")).toEqual([2, 287]);

    const path = join(dir, "tokenizer_config.json");
    await setKeys(path, { chat_template: [{ name: "rag", template: "" }] });
    await expect(openModel(dir)).rejects.toThrow(
      new ModelError(
        path,
        '"chat_template" is [{"name":"rag","template":""}], expected a template or a list of {name, template} with the name "default"',
      ),
    );
  });
});

test.each([
  ["bos_token", 2, "2"],
  ["eos_token", { special: true }, '{"special":true}'],
])("a %s of tokenizer_config.json that is no token is an error", async (key, value, shown) => {
  const dir = await copyOf("arithmetic/teacher");
  const path = join(dir, "tokenizer_config.json");
  await setKeys(path, { [key]: value });
  await expect(openModel(dir)).rejects.toThrow(
    new ModelError(path, `"${key}" is ${shown}, expected a token or {"content": token}`),
  );
});

describe("conversation", () => {
  const answer = (content: string) => ({ role: "assistant", content });
  const withTemplate = async (template: string) => {
    const dir = await copyOf("arithmetic/teacher");
    await writeFile(join(dir, "chat_template.jinja"), template);
    return (await openModel(dir)).chat;
  };

  test("says where the assistant's messages are", async () => {
    const { chat, tokenizer } = await openModel(teacher);
    const messages = [user("1"), answer("2"), user("3"), answer("4")];
    const { ids, answers } = await chat.conversation(messages);
    // <bos>, then <start_of_turn> "user\n" 1 <end_of_turn> "\n" <start_of_turn> "model\n"; the answer's "2" <end_of_turn> "\n".
    const asked = (await chat.promptIds([user("1")])).length;
    expect(answers).toEqual([
      { begin: asked, end: asked + 3 },
      { begin: 2 * asked + 2, end: 2 * asked + 5 },
    ]);
    expect(ids.slice(0, 2 * asked + 2)).toEqual(await chat.promptIds(messages.slice(0, 3)));
    expect(ids.slice(2 * asked + 2)).toEqual(await tokenizer!.encode("4<end_of_turn>\n"));
  });

  test("refuses a template that renders the past otherwise, or leaves answers out", async () => {
    for (const template of [
      "{{ bos_token }}{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
      "{{ bos_token }}{{ messages[0].content }}",
    ]) {
      const chat = await withTemplate(template);
      await expect(chat.conversation([user("1"), answer("2")])).rejects.toThrow(
        /chat_template.jinja: the chat template renders a prompt otherwise once it is answered, so the answer cannot be told from it$/,
      );
    }
  });
});

describe("withOneBos", () => {
  test("adds a missing <bos>, keeps one, collapses two", () => {
    expect(withOneBos([7, 8], 2)).toEqual([2, 7, 8]);
    expect(withOneBos([2, 7, 2], 2)).toEqual([2, 7, 2]);
    expect(withOneBos([2, 2, 7], 2)).toEqual([2, 7]);
    expect(withOneBos([], 2)).toEqual([2]);
    expect(withOneBos([7], null)).toEqual([7]);
  });
});

describe("openModel", () => {
  test("stops at the eos of both configs and at <end_of_turn>", async () => {
    expect(await openModel(teacher)).toMatchObject({ dir: teacher, stopIds: [1, 6] });
    const dir = await copyOf("arithmetic/teacher");
    await setKeys(join(dir, "config.json"), { eos_token_id: 9 });
    await setKeys(join(dir, "generation_config.json"), { eos_token_id: [3, 9] });
    expect((await openModel(dir)).stopIds).toEqual([3, 6, 9]);
  });

  test("says which stop token of generation_config.json is none", async () => {
    const dir = await copyOf("arithmetic/teacher");
    const path = join(dir, "generation_config.json");
    await setKeys(path, { eos_token_id: "<eos>" });
    await expect(openModel(dir)).rejects.toThrow(
      new ModelError(path, '"eos_token_id" is "<eos>", expected a token id or a list of token ids'),
    );
  });

  test("opens a folder without tokenizer; text is then an error", async () => {
    const dir = fixture("models/gemma2-tiny");
    const model = await openModel(dir);
    expect(model.tokenizer).toBeNull();
    expect(model.stopIds).toEqual([1]);
    await expect(model.chat.textIds("7")).rejects.toThrow(
      new ModelError(join(dir, "tokenizer.json"), "no such file, needed to turn text into token ids"),
    );
  });
});
