import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { MetadataValue } from "../../convert/gguf-header.js";
import { metadataReader } from "../../convert/metadata.js";
import { mergesOf, readSentencePiece, tokenIdsOf, tokenizerFiles } from "../../convert/sentencepiece.js";
import { ModelError } from "../../model/errors.js";
import { loadTokenizer, type Tokenizer } from "../../model/tokenizer.js";
import { newFolder } from "../model/folder.js";

const [NORMAL, CONTROL, USER_DEFINED, BYTE] = [1, 3, 4, 6];

/** Token, score and type; ids are their order. */
const VOCABULARY: readonly (readonly [string, number, number])[] = [
  ["<pad>", -1000, CONTROL],
  ["<eos>", -1000, CONTROL],
  ["<bos>", -1000, CONTROL],
  ["<unk>", -1000, CONTROL],
  ["<end_of_turn>", -1000, CONTROL],
  ["\n\n", -1000, USER_DEFINED],
  ["  ", -1000, USER_DEFINED],
  ["<0xC3>", 0, BYTE],
  ["<0xA9>", 0, BYTE],
  ["ab", 0, NORMAL],
  ["bc", -1, NORMAL],
  ["▁a", -2, NORMAL],
  ["abab", -3, NORMAL],
  ["a", -4, NORMAL],
  ["b", -5, NORMAL],
  ["c", -6, NORMAL],
  ["▁", -7, NORMAL],
  ["\n", -8, NORMAL],
  ["<unused0>", -1000, CONTROL],
  ["<start_of_image>", -1000, USER_DEFINED],
];

const column = <I extends 0 | 1 | 2>(i: I) => VOCABULARY.map((row) => row[i]);

const METADATA: Readonly<Record<string, MetadataValue>> = {
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.tokens": column(0),
  "tokenizer.ggml.scores": column(1),
  "tokenizer.ggml.token_type": column(2),
  "tokenizer.ggml.bos_token_id": 2,
  "tokenizer.ggml.eos_token_id": 1,
  "tokenizer.ggml.padding_token_id": 0,
  "tokenizer.ggml.unknown_token_id": 3,
  "tokenizer.ggml.add_bos_token": true,
};

const read = (changes: Readonly<Record<string, MetadataValue>> = {}) => {
  const metadata = new Map(Object.entries({ ...METADATA, ...changes }));
  return readSentencePiece(metadataReader({ path: "x.gguf", metadata }));
};

async function tokenizerOf(changes: Readonly<Record<string, MetadataValue>> = {}): Promise<Tokenizer> {
  const dir = await newFolder();
  await writeFile(join(dir, "tokenizer.json"), tokenizerFiles(read(changes), 128)["tokenizer.json"]!);
  return (await loadTokenizer(dir))!;
}

describe("tokenizer.json", () => {
  test("splits as SentencePiece does: the piece of the highest score first", async () => {
    const tokenizer = await tokenizerOf();
    // a b c: ab (0) before bc (-1).
    expect(await tokenizer.encode("abc")).toEqual([9, 15]);
    // ab ab: both pairs, then abab.
    expect(await tokenizer.encode("abab")).toEqual([12]);
    // ▁ a b: ab (0) before ▁a (-2).
    expect(await tokenizer.encode(" ab a")).toEqual([16, 9, 11]);
    const scores = VOCABULARY.map(([token, score]) => (token === "bc" ? 1 : score));
    expect(await (await tokenizerOf({ "tokenizer.ggml.scores": scores })).encode("abc")).toEqual([13, 10]);
  });

  test("control and user-defined tokens are found first, spaces by their own merge before any other", async () => {
    const tokenizer = await tokenizerOf();
    expect(await tokenizer.encode("a<end_of_turn>\n\n\nb")).toEqual([13, 4, 5, 17, 14]);
    // ▁▁ a, not ▁ ▁a: the score of a user-defined token is 0 whatever the file says.
    expect(await tokenizer.encode("  a")).toEqual([6, 13]);
  });

  test("special are the tokens that the hub calls special, whatever llama.cpp's converter takes them for", () => {
    const { added_tokens: added } = JSON.parse(tokenizerFiles(read(), 128)["tokenizer.json"]!) as {
      added_tokens: { content: string; special: boolean }[];
    };
    const contents = (isSpecial: boolean) => added.filter(({ special }) => special === isSpecial).map((t) => t.content);
    expect(contents(true)).toEqual(["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>", "<start_of_image>"]);
    expect(contents(false)).toEqual(["\n\n", "▁▁", "<unused0>"]);
  });

  test("bytes where a character has no piece, unknown where a byte has none", async () => {
    const tokenizer = await tokenizerOf();
    expect(await tokenizer.encode("é")).toEqual([7, 8]);
    expect(await tokenizer.encode("ü")).toEqual([3]);
    expect(await tokenizer.decode([16, 13, 7, 8, 6, 4, 15])).toBe(" aé  c");
  });

  test("bos in front and eos behind where the model adds them", () => {
    const { post_processor: bos } = JSON.parse(tokenizerFiles(read(), 128)["tokenizer.json"]!);
    expect(bos.single).toEqual([{ SpecialToken: { id: "<bos>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }]);
    const changes = { "tokenizer.ggml.add_bos_token": false, "tokenizer.ggml.add_eos_token": true };
    const { post_processor: eos } = JSON.parse(tokenizerFiles(read(changes), 128)["tokenizer.json"]!);
    expect(eos.single).toEqual([{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "<eos>", type_id: 0 } }]);
    expect(eos.special_tokens).toEqual({ "<eos>": { id: "<eos>", ids: [1], tokens: ["<eos>"] } });
  });
});

test("merges: every way to make a piece of two, by score, then the longest left part; lengths in characters", () => {
  const merges = mergesOf({ pieces: ["a", "𝔹", "a𝔹", "𝔹a", "a𝔹a"], scores: [-3, -4, -1, -2, 0] });
  expect(merges).toEqual([
    ["a𝔹", "a"],
    ["a", "𝔹a"],
    ["a", "𝔹"],
    ["𝔹", "a"],
  ]);
});

test("merges of one score may be more than a function takes arguments", () => {
  const letters = Array.from({ length: 370 }, (_, i) => String.fromCharCode(0x4e00 + i));
  const pieces = [...letters, ...letters.flatMap((a) => letters.map((b) => a + b))];
  expect(mergesOf({ pieces, scores: pieces.map(() => 0) }).length).toBe(370 * 370);
});

describe("the files beside it", () => {
  test("tokenizer_config.json, and the chat template as it is", () => {
    const template = "{{ bos_token }}{{ messages[0].content }}";
    const files = tokenizerFiles(read({ "tokenizer.chat_template": template }), 128);
    expect(Object.keys(files)).toEqual(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]);
    expect(files["chat_template.jinja"]).toBe(template);
    expect(JSON.parse(files["tokenizer_config.json"]!)).toEqual({
      add_bos_token: true,
      add_eos_token: false,
      bos_token: "<bos>",
      clean_up_tokenization_spaces: false,
      eos_token: "<eos>",
      model_max_length: 128,
      pad_token: "<pad>",
      spaces_between_special_tokens: false,
      tokenizer_class: "GemmaTokenizer",
      unk_token: "<unk>",
      use_default_system_prompt: false,
    });
    expect(Object.keys(tokenizerFiles(read(), 128))).not.toContain("chat_template.jinja");
  });

  test("a model that chats ends its turns, too", () => {
    expect(tokenIdsOf(read())).toEqual({ bos: 2, eos: 1, pad: 0 });
    const chat = { "tokenizer.chat_template": "", "tokenizer.ggml.eos_token_id": 4 };
    expect(tokenIdsOf(read(chat))).toEqual({ bos: 2, eos: [1, 4], pad: 0 });
  });
});

describe("a tokenizer that cannot be read is an error that says why", () => {
  test.each([
    [
      { "tokenizer.ggml.model": "gpt2" },
      'metadata "tokenizer.ggml.model" is "gpt2", expected "llama" (SentencePiece with scores)',
    ],
    [{ "tokenizer.ggml.scores": [0, 1] }, 'metadata "tokenizer.ggml.scores" has 2 entries, expected 20 (tokens)'],
    [
      { "tokenizer.ggml.bos_token_id": 20 },
      'metadata "tokenizer.ggml.bos_token_id" is 20, expected less than 20 (tokens)',
    ],
    [
      { "tokenizer.ggml.add_space_prefix": true },
      'metadata "tokenizer.ggml.add_space_prefix" is true, expected false as Gemma has it',
    ],
    [
      { "tokenizer.ggml.tokens": VOCABULARY.map(([token]) => (token === "bc" ? "ab" : token)) },
      'tokens 9 and 10 are both "ab"',
    ],
    [{ "tokenizer.ggml.tokens": [1] }, 'metadata "tokenizer.ggml.tokens" is [1], expected a list of strings'],
  ])("%j", (changes: Readonly<Record<string, MetadataValue>>, problem) => {
    expect(() => read(changes)).toThrow(new ModelError("x.gguf", problem));
  });
});
