import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fromFloat32, openCheckpoint } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { convertModel } from "../../convert/convert.js";
import { copyOf, newFolder } from "../model/folder.js";
import { fixture } from "../model/golden.js";

const FLOAT32 = "models/gemma2-tiny";
const SHARDED = "models/gemma2-tiny-bf16-sharded";

async function bytesOf(folder: string): Promise<Map<string, Uint8Array>> {
  const checkpoint = await openCheckpoint(folder);
  const all = new Map<string, Uint8Array>();
  for (const { name } of checkpoint.tensors) all.set(name, await checkpoint.read(name));
  await checkpoint.close();
  return all;
}

describe("a model folder", () => {
  test.each([
    ["bfloat16", "BF16"],
    ["float16", "F16"],
  ] as const)("in %s is rounded once; config says so; side files come along", async (dtype, stored) => {
    const [from, out] = [fixture(FLOAT32), join(await newFolder(), "out")];
    await convertModel({ from, out, dtype, shardSize: 5e9 });
    const [before, after] = [await openCheckpoint(from), await bytesOf(out)];
    for (const { name } of before.tensors) {
      expect(Buffer.from(after.get(name)!), name).toEqual(
        Buffer.from(fromFloat32(await before.readFloat32(name), stored)),
      );
    }
    await before.close();
    expect((await readdir(out)).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors"]);
    const config = JSON.parse(await readFile(join(from, "config.json"), "utf8")) as object;
    expect(JSON.parse(await readFile(join(out, "config.json"), "utf8"))).toEqual({ ...config, torch_dtype: dtype });
  });

  test("without --dtype keeps every bit, in other shards", async () => {
    const [from, out] = [fixture(SHARDED), join(await newFolder(), "out")];
    await convertModel({ from, out, shardSize: 5e9 });
    expect((await readdir(out)).filter((name) => name.startsWith("model"))).toEqual(["model.safetensors"]);
    expect(await bytesOf(out)).toEqual(await bytesOf(from));
  });

  test("keeps its card and licence, and what belongs to a model that sees images", async () => {
    const [from, out] = [await copyOf(FLOAT32), join(await newFolder(), "out")];
    const kept = ["README.md", "LICENSE", "NOTICE.txt", "preprocessor_config.json"];
    for (const name of [...kept, "training.log"]) await writeFile(join(from, name), name);
    await convertModel({ from, out, shardSize: 5e9 });
    const names = ["config.json", "generation_config.json", "model.safetensors", ...kept];
    expect(new Set(await readdir(out))).toEqual(new Set(names));
    expect(await readFile(join(out, "LICENSE"), "utf8")).toBe("LICENSE");
  });

  test("that is quantised is refused: its codes cannot be rounded", async () => {
    const from = fixture("models/gemma3-tiny-nf4");
    const folder = await newFolder();
    await expect(convertModel({ from, out: join(folder, "out"), dtype: "bfloat16", shardSize: 5e9 })).rejects.toThrow(
      `${from}/config.json: has a "quantization_config", expected a model whose weights are floats: take the one that it was made of`,
    );
    expect(await readdir(folder)).toEqual([]);
  });

  test("cannot become itself, whatever --overwrite says", async () => {
    const folder = await copyOf(FLOAT32);
    const conversion = convertModel({ from: folder, out: folder, shardSize: 5e9, overwrite: true });
    await expect(conversion).rejects.toThrow(
      `${folder}: would replace ${folder}, which is an input; give another folder to write`,
    );
  });

  test("interrupted leaves nothing behind", async () => {
    const folder = await newFolder();
    const stop = new AbortController();
    stop.abort(new Error("stopped"));
    const conversion = convertModel({
      from: fixture(FLOAT32),
      out: join(folder, "out"),
      shardSize: 5e9,
      signal: stop.signal,
    });
    await expect(conversion).rejects.toThrow("stopped");
    expect(await readdir(folder)).toEqual([]);
  });
});
