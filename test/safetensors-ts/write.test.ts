import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type NamedTensor,
  openCheckpoint,
  type StreamedTensor,
  serialize,
  writeCheckpoint,
  writeSafetensors,
} from "safetensors-ts";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

const f32 = (name: string, ...values: number[]): NamedTensor => ({
  name,
  dtype: "F32",
  shape: [values.length],
  data: new Uint8Array(Float32Array.from(values).buffer),
});
/** The same tensor, in chunks of `size` bytes. */
const streamed = ({ data, ...spec }: NamedTensor, size: number): StreamedTensor => ({
  ...spec,
  *chunks() {
    for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
  },
});
/** A SafetensorsError with exactly this message. */
const problem = (message: string) => expect.objectContaining({ name: "SafetensorsError", message });

let root: string;
let folder: string;
let count = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "write-"));
});
beforeEach(async () => {
  folder = join(root, String(count++));
  await mkdir(folder);
});
afterAll(() => rm(root, { recursive: true }));

describe("writeSafetensors", () => {
  const tensors = [f32("b", 1, 2, 3), f32("a", 4)];

  test("writes the bytes of serialize, from tensors in memory and from streamed ones", async () => {
    const path = join(folder, "x.safetensors");
    await writeSafetensors(path, tensors, { format: "pt" });
    expect(new Uint8Array(await readFile(path))).toEqual(serialize(tensors, { format: "pt" }));
    await writeSafetensors(path, [streamed(tensors[0]!, 5), tensors[1]!]);
    expect(new Uint8Array(await readFile(path))).toEqual(serialize(tensors));
    expect(await readdir(folder)).toEqual(["x.safetensors"]);
  });

  test("keeps the old file and no temporary one when it fails", async () => {
    const path = join(folder, "x.safetensors");
    await writeFile(path, "old");
    const failing: StreamedTensor = {
      name: "c",
      dtype: "U8",
      shape: [4],
      *chunks() {
        yield new Uint8Array(2);
        throw new Error("no more");
      },
    };
    await expect(writeSafetensors(path, [...tensors, failing])).rejects.toThrow("no more");
    for (const bytes of [3, 5]) {
      const short = streamed({ ...f32("c", 1), data: new Uint8Array(bytes) }, 1);
      await expect(writeSafetensors(path, [short])).rejects.toThrow(
        problem(`${path}: tensor "c" of dtype F32 and shape [1] needs 4 bytes, got ${bytes}`),
      );
    }
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["x.safetensors"]);
  });

  test("the old file is whole until the new one is", async () => {
    const path = join(folder, "x.safetensors");
    await writeFile(path, "old");
    const seen: string[] = [];
    await writeSafetensors(path, [
      {
        name: "a",
        dtype: "U8",
        shape: [1],
        async *chunks() {
          seen.push(await readFile(path, "utf8"));
          yield Uint8Array.of(1);
        },
      },
    ]);
    expect(seen).toEqual(["old"]);
  });
});

describe("writeCheckpoint", () => {
  const tensors = [f32("a", 1, 2), f32("b", 3), f32("c", 4, 5, 6, 7, 8), f32("d", 9)];
  const [A, B, C, D] = tensors as [NamedTensor, NamedTensor, NamedTensor, NamedTensor];

  test("writes one file of format pt where everything fits", async () => {
    expect(await writeCheckpoint(folder, tensors)).toEqual(["model.safetensors"]);
    expect(new Uint8Array(await readFile(join(folder, "model.safetensors")))).toEqual(
      serialize(tensors, { format: "pt" }),
    );
    expect(await readdir(folder)).toEqual(["model.safetensors"]);
  });

  test("fills shards in the given order; a tensor above the limit has a shard of its own, which comes before the one under way", async () => {
    const names = await writeCheckpoint(folder, tensors, { shardSize: 12, metadata: { format: "pt", by: "test" } });
    const shards = [
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
    ];
    expect(names).toEqual([...shards, "model.safetensors.index.json"]);
    for (const [i, content] of [[C], [A, B], [D]].entries()) {
      const bytes = new Uint8Array(await readFile(join(folder, shards[i]!)));
      expect(bytes).toEqual(serialize(content, { format: "pt", by: "test" }));
    }
    expect(JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"))).toEqual({
      metadata: { total_size: 36 },
      weight_map: { a: shards[1], b: shards[1], c: shards[0], d: shards[2] },
    });
    const checkpoint = await openCheckpoint(folder);
    expect([...(await checkpoint.readFloat32("c"))]).toEqual([4, 5, 6, 7, 8]);
    await checkpoint.close();
  });

  test("writes the same bytes from an async iterable", async () => {
    const other = join(folder, "async");
    async function* stream() {
      for (const tensor of tensors) yield tensor;
    }
    const names = await writeCheckpoint(folder, tensors, { shardSize: 12 });
    await writeCheckpoint(other, stream(), { shardSize: 12 });
    expect((await readdir(other)).sort()).toEqual(names);
    for (const name of names) expect(await readFile(join(other, name))).toEqual(await readFile(join(folder, name)));
  });

  test("has each tensor of an async iterable on disk before it asks for the next", async () => {
    const onDisk: number[] = [];
    async function* stream() {
      for (const tensor of tensors) {
        const [spool] = await readdir(folder);
        onDisk.push((await stat(join(folder, spool!))).size);
        yield tensor;
      }
    }
    await writeCheckpoint(folder, stream());
    expect(onDisk).toEqual([0, 8, 12, 32]);
  });

  test("removes the files of the checkpoint it replaces, and nothing else", async () => {
    await writeFile(join(folder, "config.json"), "{}");
    await writeCheckpoint(folder, tensors, { shardSize: 12 });
    await writeCheckpoint(folder, tensors);
    expect((await readdir(folder)).sort()).toEqual(["config.json", "model.safetensors"]);
    await writeCheckpoint(folder, tensors, { shardSize: 24 });
    expect((await readdir(folder)).sort()).toEqual([
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ]);
  });

  test("keeps the old checkpoint and no temporary file when it fails", async () => {
    await writeCheckpoint(folder, [A]);
    const old = await readFile(join(folder, "model.safetensors"));
    async function* failing() {
      yield* [B, C];
      throw new Error("no more");
    }
    await expect(writeCheckpoint(folder, failing(), { shardSize: 4 })).rejects.toThrow("no more");
    await expect(writeCheckpoint(folder, [A, B, { ...C, shape: [4] }], { shardSize: 4 })).rejects.toThrow(
      problem(
        `${join(folder, "model-00002-of-00003.safetensors")}: tensor "c" of dtype F32 and shape [4] needs 16 bytes, got 20`,
      ),
    );
    expect(await readdir(folder)).toEqual(["model.safetensors"]);
    expect(await readFile(join(folder, "model.safetensors"))).toEqual(old);
  });

  test("refuses a name that comes twice, in one shard or in two", async () => {
    await expect(writeCheckpoint(folder, [A, A])).rejects.toThrow(problem('two tensors are called "a"'));
    await expect(writeCheckpoint(folder, [A, A], { shardSize: 4 })).rejects.toThrow(
      problem('two tensors are called "a"'),
    );
    expect(await readdir(folder)).toEqual([]);
  });

  test("refuses a shard size that is not above 0", async () => {
    await expect(writeCheckpoint(folder, [A], { shardSize: 0 })).rejects.toThrow(
      new RangeError("shardSize should be a number of bytes above 0, got 0"),
    );
  });
});
