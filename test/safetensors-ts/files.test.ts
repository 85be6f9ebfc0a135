// Any tensors, written as bytes and as files, in one or in several, and read again.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  BITS,
  type Dtype,
  type NamedTensor,
  openCheckpoint,
  openSafetensors,
  serialize,
  writeCheckpoint,
} from "safetensors-ts";
import { afterAll, beforeAll, expect, test } from "vitest";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "files-"));
});
afterAll(() => rm(folder, { recursive: true }));

const tensor = fc
  .record({
    name: fc.string({ unit: "binary" }).filter((name) => name !== "__metadata__"),
    dtype: fc.constantFrom(...(Object.keys(BITS) as Dtype[])),
    shape: fc.array(fc.nat(4), { maxLength: 4 }),
  })
  // The smallest multiple that fills bytes with elements of 4 and 6 bits.
  .map((spec) => (BITS[spec.dtype] < 8 ? { ...spec, shape: [...spec.shape, 4] } : spec))
  .chain((spec) => {
    const bytes = spec.shape.reduce((product, size) => product * size, BITS[spec.dtype]) / 8;
    return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data): NamedTensor => ({ ...spec, data }));
  });
const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 });
const metadata = fc.dictionary(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), { noNullPrototype: true });

/** Every tensor with the bytes that are read of it, by name. */
async function contents(from: Awaited<ReturnType<typeof openSafetensors | typeof openCheckpoint>>) {
  const found = new Map<string, NamedTensor>();
  for (const { name, dtype, shape } of from.tensors)
    found.set(name, { name, dtype, shape, data: await from.read(name) });
  return found;
}
const byName = (given: readonly NamedTensor[]) => new Map(given.map((tensor) => [tensor.name, tensor]));

test("openSafetensors reads what serialize gave", async () => {
  const path = join(folder, "x.safetensors");
  await fc.assert(
    fc.asyncProperty(tensors, metadata, async (given, meta) => {
      await rm(path, { force: true });
      await writeFile(path, serialize(given, meta));
      const file = await openSafetensors(path);
      try {
        expect(file.metadata).toEqual(meta);
        expect(await contents(file)).toEqual(byName(given));
      } finally {
        await file.close();
      }
    }),
  );
});

test("openCheckpoint reads what writeCheckpoint wrote, in files of any size", async () => {
  const path = join(folder, "checkpoint");
  await fc.assert(
    fc.asyncProperty(tensors, fc.integer({ min: 1, max: 2000 }), async (given, shardSize) => {
      const files = await writeCheckpoint(path, given, { shardSize });
      const checkpoint = await openCheckpoint(path);
      try {
        expect(checkpoint.files).toEqual(files.filter((name) => name.endsWith(".safetensors")));
        expect(await contents(checkpoint)).toEqual(byName(given));
      } finally {
        await checkpoint.close();
      }
    }),
    { numRuns: 50 },
  );
});
