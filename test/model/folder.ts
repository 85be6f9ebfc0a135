/** Model folders made for one test. */
import { cp, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "./golden.js";

/** A new folder under the system's temporary one. */
export const newFolder = (): Promise<string> => mkdtemp(join(tmpdir(), "heddle-model-"));

/** A copy of a folder of test/fixtures, to be changed. */
export async function copyOf(path: string): Promise<string> {
  const dir = await newFolder();
  await cp(fixture(path), dir, { recursive: true });
  return dir;
}

/** Sets keys of a JSON file; undefined removes one. */
export async function setKeys(path: string, changes: Record<string, unknown>): Promise<void> {
  const object = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...object, ...changes }));
}
