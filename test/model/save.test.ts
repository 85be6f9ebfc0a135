/** Written model folders: the same model comes back, side files and all, and a folder is replaced whole or not at all. */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { ModelError } from "../../model/errors.js";
import { replaceFolder, saveModel } from "../../model/save.js";
import { newFolder } from "./folder.js";
import { fixture } from "./golden.js";

const from = fixture("arithmetic/teacher");

async function weightsOf(dir: string): Promise<Record<string, { shape: readonly number[]; values: Float32Array }>> {
  const checkpoint = await openCheckpoint(dir);
  const entries = checkpoint.tensors.map(async ({ name, shape }) => {
    return [name, { shape, values: await checkpoint.readFloat32(name) }] as const;
  });
  const weights = Object.fromEntries(await Promise.all(entries));
  await checkpoint.close();
  return weights;
}

describe("saveModel", () => {
  test("writes back a bf16 model byte for byte, with its side files", async () => {
    const dir = join(await newFolder(), "final");
    await saveModel(dir, await weightsOf(from), { from, dtype: "bfloat16" });
    expect((await readdir(dir)).sort()).toEqual((await readdir(from)).sort());
    for (const file of await readdir(from)) {
      expect((await readFile(join(dir, file))).equals(await readFile(join(from, file))), file).toBe(true);
    }
  });

  test("takes tokenizer and chat template from one folder alone, also where the other has more files", async () => {
    const own = await newFolder();
    await writeFile(join(own, "tokenizer.json"), "{}");
    await writeFile(join(own, "tokenizer_config.json"), '{"chat_template": "its own"}');
    const dir = join(await newFolder(), "final");
    await saveModel(dir, {}, { from, tokenizerFrom: own, dtype: "bfloat16" });
    expect((await readdir(from)).sort()).toContain("chat_template.jinja");
    expect((await readdir(dir)).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(await readFile(join(dir, "tokenizer_config.json"), "utf8")).toBe('{"chat_template": "its own"}');
  });

  test("rounds to the dtype asked for, and says so in config.json", async () => {
    const dir = join(await newFolder(), "final");
    // bf16 numbers above 1 are 2^-7 apart. Both values lie half-way between two of them, and go to the even one.
    const weights = { w: { shape: [2], values: Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8) } };
    const source = await newFolder();
    await writeFile(join(source, "config.json"), '{"torch_dtype": "float32", "rope_parameters": {"rope_theta": 1e4}}');
    await saveModel(dir, weights, { from: source, dtype: "bfloat16" });
    expect([...(await weightsOf(dir)).w!.values]).toEqual([1, 1 + 2 ** -6]);
    expect(await readFile(join(dir, "config.json"), "utf8")).toBe(
      '{"torch_dtype": "bfloat16", "rope_parameters": {"rope_theta": 1e4}}',
    );
    const checkpoint = await openCheckpoint(dir);
    expect(checkpoint.metadata).toEqual({ format: "pt" });
    await checkpoint.close();
  });
});

describe("replaceFolder", () => {
  const write = (text: string) => (partial: string) => writeFile(join(partial, "config.json"), text);

  test("puts the new folder in the place of the old one", async () => {
    const parent = await newFolder();
    const dir = join(parent, "model");
    await replaceFolder(dir, write("old"));
    await writeFile(join(dir, "more"), "");
    await replaceFolder(dir, write("new"));
    expect(await readdir(dir)).toEqual(["config.json"]);
    expect(await readFile(join(dir, "config.json"), "utf8")).toBe("new");
    expect(await readdir(parent)).toEqual(["model"]);
  });

  test("leaves the old folder when writing fails, and clears what a killed process left", async () => {
    const parent = await newFolder();
    const dir = join(parent, "model");
    await replaceFolder(dir, write("old"));
    await mkdir(join(parent, ".model.partial"));
    await writeFile(join(parent, ".model.partial", "half"), "");
    const failing = replaceFolder(dir, async (partial) => {
      expect(await readdir(partial)).toEqual([]);
      throw new Error("disk full");
    });
    await expect(failing).rejects.toThrow("disk full");
    expect(await readFile(join(dir, "config.json"), "utf8")).toBe("old");
    expect(await readdir(parent)).toEqual(["model"]);
  });

  test("does not replace a folder of other files, nor a file", async () => {
    const dir = await newFolder();
    await writeFile(join(dir, "thesis.tex"), "");
    await expect(replaceFolder(dir, write(""))).rejects.toThrow(
      new ModelError(dir, "holds other files than a model; give a new or an empty folder"),
    );
    const file = join(dir, "thesis.tex");
    await expect(replaceFolder(file, write(""))).rejects.toThrow(
      new ModelError(file, "is a file, expected a folder or a new name"),
    );
  });
});
