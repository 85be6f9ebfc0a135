import {
  cp,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { layOutCheckpoint, type NamedTensor, openCheckpoint, openSafetensors, serialize } from "safetensors-ts";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

const fixture = (path: string) => fileURLToPath(new URL(`../fixtures/models/${path}`, import.meta.url));
const f32 = (name: string, ...values: number[]): NamedTensor => ({
  name,
  dtype: "F32",
  shape: [values.length],
  data: new Uint8Array(Float32Array.from(values).buffer),
});
/** A SafetensorsError with exactly this message. */
const problem = (message: string) => expect.objectContaining({ name: "SafetensorsError", message });

let root: string;
let folder: string;
let count = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "open-"));
});
beforeEach(async () => {
  folder = join(root, String(count++));
  await mkdir(folder);
});
afterAll(() => rm(root, { recursive: true }));

describe("openSafetensors", () => {
  test("reads header first, then one tensor or a part of it", async () => {
    const path = join(folder, "x.safetensors");
    await writeFile(path, serialize([f32("a", 1, 2, 3), f32("b", 4)], { format: "pt" }));
    const file = await openSafetensors(path);
    expect(file.metadata).toEqual({ format: "pt" });
    expect(file.tensors).toEqual([
      { name: "a", dtype: "F32", shape: [3], begin: 0, end: 12, path, position: 152 },
      { name: "b", dtype: "F32", shape: [1], begin: 12, end: 16, path, position: 164 },
    ]);
    expect(await file.read("b")).toEqual(f32("b", 4).data);
    expect(await file.readRange("a", 4, 12)).toEqual(f32("a", 2, 3).data);
    await expect(file.read("c")).rejects.toThrow(problem(`${path}: has no tensor "c"`));
    await expect(file.readRange("a", 4, 13)).rejects.toThrow(
      new RangeError(`${path}: bytes [4,13) of tensor "a", expected a part of [0,12)`),
    );
    await file.close();
  });

  test("says that a file is truncated, whether before or after it was opened", async () => {
    const path = join(folder, "x.safetensors");
    const bytes = serialize([f32("a", 1, 2)]);
    await writeFile(path, bytes.subarray(0, -3));
    await expect(openSafetensors(path)).rejects.toThrow(
      problem(`${path}: header describes 8 bytes of tensors, found 5: the file is truncated`),
    );
    await writeFile(path, bytes);
    const file = await openSafetensors(path);
    await truncate(path, bytes.length - 8);
    await expect(file.read("a")).rejects.toThrow(
      problem(`${path}: ends at byte ${bytes.length - 8}: truncated since it was opened`),
    );
    await file.close();
  });

  test("says that a file was written to after it was opened; one that was replaced stays as it was", async () => {
    const path = join(folder, "x.safetensors");
    await writeFile(path, serialize([f32("a", 1, 2)]));
    const file = await openSafetensors(path);
    await rename(path, join(folder, "old.safetensors"));
    await writeFile(path, serialize([f32("a", 3, 4)]));
    expect(await file.read("a")).toEqual(f32("a", 1, 2).data);
    const handle = await open(join(folder, "old.safetensors"), "r+");
    await handle.write(Uint8Array.of(0, 0, 0, 0), 0, 4, 72);
    await handle.utimes(1, 1); // the clock of a file system may be coarse: this write is surely later, or earlier
    await handle.close();
    await expect(file.read("a")).rejects.toThrow(
      problem(`${path}: was written to since it was opened, expected it to stay as it was`),
    );
    await file.close();
  });

  test("reads beyond 4 GB", async () => {
    const path = join(folder, "x.safetensors");
    const size = 5_000_000_000;
    const { header } = layOutCheckpoint([{ name: "a", dtype: "U8", shape: [size] }], { shardSize: size }).shards[0]!;
    const sparse = await open(path, "w");
    await sparse.write(header);
    await sparse.truncate(header.length + size);
    await sparse.write(Uint8Array.of(1, 2, 3), 0, 3, header.length + size - 3);
    await sparse.close();
    const file = await openSafetensors(path);
    expect(file.info("a")).toMatchObject({ shape: [size], end: size });
    expect(await file.readRange("a", size - 4, size)).toEqual(Uint8Array.of(0, 1, 2, 3));
    await file.close();
  });

  test("names a missing file, a folder and an empty file", async () => {
    const path = join(folder, "x.safetensors");
    await expect(openSafetensors(path)).rejects.toThrow(problem(`${path}: no such file`));
    await expect(openSafetensors(folder)).rejects.toThrow(problem(`${folder}: is not a file`));
    await writeFile(path, "");
    await expect(openSafetensors(path)).rejects.toThrow(problem(`${path}: is 0 bytes long, expected at least 8`));
  });
});

describe("openCheckpoint", () => {
  const index = (weightMap: unknown) =>
    writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
  const shard = (name: string, ...tensors: NamedTensor[]) => writeFile(join(folder, name), serialize(tensors));

  test("reads four bf16 shards of transformers as one checkpoint", async () => {
    const path = fixture("gemma2-tiny-bf16-sharded");
    const checkpoint = await openCheckpoint(path);
    const { metadata, weight_map } = JSON.parse(await readFile(join(path, "model.safetensors.index.json"), "utf8"));
    expect(checkpoint.files).toHaveLength(4);
    expect(checkpoint.metadata).toEqual({ format: "pt" });
    expect(Object.fromEntries(checkpoint.tensors.map(({ name, file }) => [name, file]))).toEqual(weight_map);
    expect(checkpoint.tensors.reduce((sum, { begin, end }) => sum + end - begin, 0)).toBe(metadata.total_size);
    const values = await checkpoint.readFloat32("model.norm.weight");
    expect(values).toHaveLength(64);
    expect(values.every((x) => Math.abs(x) < 10)).toBe(true);
    expect((await checkpoint.read("model.norm.weight")).length).toBe(128);
    await checkpoint.close();
  });

  test("takes the folder, the file and the index for the same checkpoint", async () => {
    await shard("model.safetensors", f32("a", 1, 2));
    const paths = [folder, join(folder, "model.safetensors")];
    for (const path of paths) {
      const checkpoint = await openCheckpoint(path);
      expect(checkpoint.files).toEqual(["model.safetensors"]);
      expect([...(await checkpoint.readFloat32("a"))]).toEqual([1, 2]);
      expect(await checkpoint.readRange("a", 4, 8)).toEqual(f32("a", 2).data);
      await expect(checkpoint.read("z")).rejects.toThrow(problem(`${path}: has no tensor "z"`));
      await checkpoint.close();
    }
    const sharded = await openCheckpoint(join(fixture("gemma2-tiny-bf16-sharded"), "model.safetensors.index.json"));
    expect(sharded.files).toHaveLength(4);
    await sharded.close();
  });

  test("follows links, as the Hub's cache has them", async () => {
    await shard("blob", f32("a", 1));
    await symlink("blob", join(folder, "model.safetensors"));
    const checkpoint = await openCheckpoint(folder);
    expect([...(await checkpoint.readFloat32("a"))]).toEqual([1]);
    await checkpoint.close();
  });

  test("names a folder that is missing or holds no model", async () => {
    const missing = join(folder, "missing");
    await expect(openCheckpoint(missing)).rejects.toThrow(problem(`${missing}: no such file or folder`));
    await shard("adapter_model.safetensors");
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(
        `${folder}: holds neither model.safetensors nor model.safetensors.index.json (it has adapter_model.safetensors)`,
      ),
    );
  });

  test("names a missing shard", async () => {
    await cp(fixture("gemma2-tiny-bf16-sharded"), folder, { recursive: true });
    await rm(join(folder, "model-00004-of-00004.safetensors"));
    await expect(openCheckpoint(folder)).rejects.toThrow(
      /: shard model-00004-of-00004\.safetensors is missing; the index has \d+ tensors in it, "model\.[a-z0-9_.]+" first$/,
    );
  });

  test("names a tensor that only the index has, only a shard has, or two shards have", async () => {
    await shard("model-1.safetensors", f32("a", 1));
    await shard("model-2.safetensors", f32("b", 1));
    await index({ a: "model-1.safetensors", b: "model-2.safetensors", c: "model-2.safetensors" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(`${folder}: the index has tensor "c" in model-2.safetensors, but no shard has it`),
    );
    await index({ a: "model-2.safetensors", b: "model-1.safetensors" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(`${folder}: the index has tensor "a" in model-2.safetensors, but it is in model-1.safetensors`),
    );
    await shard("model-2.safetensors", f32("b", 1), f32("d", 1));
    await index({ a: "model-1.safetensors", b: "model-2.safetensors" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(`${folder}: tensor "d" of model-2.safetensors is not in the index`),
    );
    await shard("model-2.safetensors", f32("b", 1), f32("a", 1));
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(`${folder}: tensor "a" is in model-1.safetensors and model-2.safetensors`),
    );
  });

  test("refuses an index that is no JSON, has no weight_map, or leads out of the folder", async () => {
    const path = join(folder, "model.safetensors.index.json");
    await writeFile(path, "{");
    await expect(openCheckpoint(folder)).rejects.toThrow(`${path}: is not valid JSON: `);
    await index([]);
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(`${path}: has no "weight_map" object from tensor names to file names`),
    );
    await index({ a: "../secret.safetensors" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      problem(`${path}: maps tensor "a" to "../secret.safetensors", expected a .safetensors file of the same folder`),
    );
  });

  test("leaves no file open when it fails", async () => {
    const openFiles = async () => (await readdir("/proc/self/fd")).length;
    await shard("model-1.safetensors", f32("a", 1));
    await index({ a: "model-1.safetensors", b: "model-1.safetensors" });
    const before = await openFiles();
    await expect(openCheckpoint(folder)).rejects.toThrow("no shard has it");
    expect(await openFiles()).toBe(before);
  });
});
