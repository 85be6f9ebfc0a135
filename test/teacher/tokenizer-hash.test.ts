import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tokenizerSha256 } from "../../teacher/tokenizer-hash.js";

async function hashOf(tokenizer: object, indent?: number): Promise<string | null> {
  const dir = await mkdtemp(join(tmpdir(), "heddle-tokenizer-"));
  await writeFile(join(dir, "tokenizer.json"), JSON.stringify(tokenizer, null, indent));
  return tokenizerSha256(dir);
}

const tokenizer = {
  model: { vocab: { "<pad>": 0, a: 1, b: 2 }, merges: ["a b"] },
  added_tokens: [{ id: 0, content: "<pad>" }],
};

describe("tokenizerSha256", () => {
  test("is the sha256 of the lines [id,token] in the order of the ids", async () => {
    // printf '[0,"<pad>"]\n[1,"a"]\n[2,"b"]\n' | sha256sum
    expect(await hashOf(tokenizer)).toBe("d789cfa9f83a6c27207cfd8111e23373c60eff4461db65b9b82a9b6775860fde");
  });

  test("does not depend on how the file was written: indent, order of keys, style of merges, added tokens", async () => {
    const other = { added_tokens: [], model: { merges: [["a", "b"]], vocab: { b: 2, a: 1, "<pad>": 0 } } };
    expect(await hashOf(other, 2)).toBe(await hashOf(tokenizer));
    expect(
      await hashOf({
        model: {
          vocab: [
            ["<pad>", 0],
            ["a", -1],
            ["b", -2],
          ],
        },
      }),
    ).toBe(await hashOf(tokenizer));
  });

  test("differs when an id means another token", async () => {
    expect(await hashOf({ model: { vocab: { "<pad>": 0, b: 1, a: 2 } } })).not.toBe(await hashOf(tokenizer));
  });

  test("a folder without tokenizer.json has none", async () => {
    expect(await tokenizerSha256(await mkdtemp(join(tmpdir(), "heddle-tokenizer-")))).toBeNull();
  });

  test("a file without a vocabulary is an error", async () => {
    await expect(hashOf({ version: "1.0" })).rejects.toThrow(
      /tokenizer\.json: no model\.vocab, expected the tokenizer\.json of a Hugging Face tokenizer$/,
    );
  });
});
