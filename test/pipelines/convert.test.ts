/** `heddle convert` as a user starts it. What it writes is checked in test/convert. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { gemmaGguf } from "../convert/gemma-gguf.js";
import { ggufBytes, ggufFile } from "../convert/gguf-bytes.js";
import { heddle, newFolder } from "./command.js";

test("a GGUF file to a folder, and that to another one in other shards", async () => {
  const [from, folder] = [await ggufFile(ggufBytes(gemmaGguf("gemma3"))), newFolder()];
  const first = await heddle(folder, "convert", from, "model", "--dtype", "float32");
  expect(first).toMatchObject({ code: 0, stdout: "wrote model\n" });
  expect(first.stderr).toMatch(/^convert: 76 kB\nconvert: 76 kB done in /);
  const second = await heddle(folder, "convert", "model", "parts", "--dtype", "bfloat16", "--shard-size", "20KB");
  expect(second).toMatchObject({ code: 0, stdout: "wrote parts\n" });
  expect(await readdir(join(folder, "parts"))).toContain("model-00002-of-00002.safetensors");
});

test("2 and one line for what the user can mend", async () => {
  const folder = newFolder();
  const messageOf = async (...args: string[]) => {
    const { code, stderr } = await heddle(folder, "convert", ...args);
    expect(code).toBe(2);
    return stderr;
  };
  expect(await messageOf("gemma.gguf", "out")).toBe(
    "error: command-argument value 'gemma.gguf' is invalid for argument 'model'. " +
      `no such file or folder (looked in ${folder})\n`,
  );
  expect(await messageOf(".", "out")).toBe("error: .: has no config.json, expected a model folder\n");
  const cut = await ggufFile(Buffer.from("GGUF\x03"));
  expect(await messageOf(cut, "out")).toBe(
    `error: ${cut}: ends at byte 5, within its header: it is cut short, get it again\n`,
  );
  expect(await readdir(folder)).toEqual([]);
});
