import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { describe, expect, test } from "vitest";
import { CHAT_TEMPLATES, chatTemplateFiles } from "../../merge/chat-template.js";
import { RecipeError } from "../../merge/recipe.js";
import { newFolder } from "../model/folder.js";

const QUESTION = { role: "user", content: "q1" };
const TALK = [QUESTION, { role: "assistant", content: "a1" }, { role: "user", content: "q2" }];
const SYSTEM = { role: "system", content: "sys" };

function render(name: string, messages: readonly unknown[], isPrompt = true): string {
  const template = new Template(CHAT_TEMPLATES[name]!);
  return template.render({ messages, add_generation_prompt: isPrompt, bos_token: "<s>", eos_token: "</s>" });
}

describe("CHAT_TEMPLATES", () => {
  test("alpaca", () => {
    const start =
      "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n";
    expect(render("alpaca", [QUESTION])).toBe(`${start}### Instruction:\nq1\n\n### Response:\n`);
    expect(render("alpaca", [SYSTEM, ...TALK])).toBe(
      "<s>sys\n\n### Instruction:\nq1\n\n### Response:\na1</s>\n\n### Instruction:\nq2\n\n### Response:\n",
    );
  });

  test("chatml", () => {
    expect(render("chatml", [SYSTEM, ...TALK])).toBe(
      "<|im_start|>system\nsys<|im_end|>\n<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n",
    );
    expect(render("chatml", [QUESTION], false)).toBe("<|im_start|>user\nq1<|im_end|>\n");
  });

  test("llama3", () => {
    expect(render("llama3", [{ ...SYSTEM, content: " sys\n" }, QUESTION])).toBe(
      "<s><|start_header_id|>system<|end_header_id|>\n\nsys<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nq1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    );
    expect(render("llama3", [QUESTION], false)).toBe("<s><|start_header_id|>user<|end_header_id|>\n\nq1<|eot_id|>");
  });

  test("mistral", () => {
    expect(render("mistral", TALK)).toBe("<s>[INST] q1 [/INST] a1</s>[INST] q2 [/INST]");
    expect(render("mistral", [SYSTEM, ...TALK])).toBe("<s>[INST] sys\n\nq1 [/INST] a1</s>[INST] q2 [/INST]");
    expect(() => render("mistral", [QUESTION, QUESTION])).toThrow("roles must alternate: user, assistant, user, ...");
  });

  test("exaone", () => {
    expect(render("exaone", TALK)).toBe(
      "[|system|][|endofturn|]\n[|user|]q1\n[|assistant|]a1[|endofturn|]\n[|user|]q2\n[|assistant|]",
    );
    expect(render("exaone", [SYSTEM, QUESTION], false)).toBe("[|system|]sys[|endofturn|]\n[|user|]q1\n");
  });
});

/** A folder with a template in chat_template.jinja, in tokenizer_config.json, or in both. */
async function folderWith({ file, config }: { file?: string; config?: unknown }): Promise<string> {
  const dir = await newFolder();
  if (file !== undefined) await writeFile(join(dir, "chat_template.jinja"), file);
  if (config !== undefined) {
    await writeFile(
      join(dir, "tokenizer_config.json"),
      `{\n  "n": 1.0,\n  "chat_template": ${JSON.stringify(config)}\n}\n`,
    );
  }
  return dir;
}

describe("chatTemplateFiles", () => {
  test("auto takes the commonest template, the first of several, blanks at the ends aside", async () => {
    const empty = await newFolder();
    const a = await folderWith({ file: "{{ a }}" });
    const b = await folderWith({ config: "{{ b }}\n" });
    const b2 = await folderWith({ file: "{{ b }}", config: "{{ a }}" });
    const named = await folderWith({ config: [{ name: "tool" }, { name: "default", template: "{{ a }}" }] });
    const auto = async (...models: string[]) => (await chatTemplateFiles("auto", models, empty))["chat_template.jinja"];
    expect(await auto(a, b)).toBe("{{ a }}");
    expect(await auto(a, b, empty, b2)).toBe("{{ b }}\n");
    expect(await auto(b, named, a)).toBe("{{ a }}");
    expect(await chatTemplateFiles("auto", [empty], a)).toEqual({});
  });

  test("writes to where the folder has its template, and to chat_template.jinja where it has none", async () => {
    const text = "{{ x }}";
    const changed = '{\n  "n": 1.0,\n  "chat_template": "{{ x }}"\n}\n';
    const files = async (folder: Parameters<typeof folderWith>[0]) =>
      chatTemplateFiles(text, [], await folderWith(folder));
    expect(await files({})).toEqual({ "chat_template.jinja": text });
    expect(await files({ config: null })).toEqual({ "chat_template.jinja": text });
    expect(await files({ file: "old" })).toEqual({ "chat_template.jinja": text });
    expect(await files({ config: "old" })).toEqual({ "tokenizer_config.json": changed });
    expect(await files({ file: "old", config: "old" })).toEqual({
      "chat_template.jinja": text,
      "tokenizer_config.json": changed,
    });
    const dir = await folderWith({ config: "old" });
    expect(
      await chatTemplateFiles(text, [], dir, { "tokenizer_config.json": '{"chat_template": "", "more": 1}' }),
    ).toEqual({ "tokenizer_config.json": '{"chat_template": "{{ x }}", "more": 1}' });
  });

  test("a name is the template of that name", async () => {
    expect(await chatTemplateFiles("chatml", [], await newFolder())).toEqual({
      "chat_template.jinja": CHAT_TEMPLATES.chatml,
    });
  });

  test("refuses names that it does not know, and texts that are no jinja", async () => {
    await expect(chatTemplateFiles("vicuna", [], ".")).rejects.toThrow(
      new RecipeError(
        'chat_template: expected auto, alpaca, chatml, llama3, mistral, exaone or a template in jinja, got "vicuna"',
      ),
    );
    await expect(chatTemplateFiles("{% for %}", [], ".")).rejects.toThrow(/^chat_template: does not parse: /);
  });
});
