/** Model folders made for one test. */
import { cp, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type NamedTensor, openCheckpoint, writeCheckpoint } from "safetensors-ts";
import { fixture } from "./golden.js";

/** A new folder under the system's temporary one. */
export const newFolder = (): Promise<string> => mkdtemp(join(tmpdir(), "heddle-model-"));

/** A copy of a folder of test/fixtures, to be changed. */
export async function copyOf(path: string): Promise<string> {
  const dir = await newFolder();
  await cp(fixture(path), dir, { recursive: true });
  return dir;
}

/** A copy of a model folder of test/fixtures with its list of tensors changed. */
export async function changedCheckpoint(
  path: string,
  change: (tensors: NamedTensor[]) => NamedTensor[],
): Promise<string> {
  const dir = await copyOf(path);
  const checkpoint = await openCheckpoint(dir);
  const tensors = await Promise.all(
    checkpoint.tensors.map(async (t) => ({ ...t, data: await checkpoint.read(t.name) })),
  );
  await checkpoint.close();
  await writeCheckpoint(dir, change(tensors));
  return dir;
}

/** Sets keys of a JSON file; undefined removes one. */
export async function setKeys(path: string, changes: Record<string, unknown>): Promise<void> {
  const object = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...object, ...changes }));
}
