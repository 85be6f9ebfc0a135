/** What a result depends on, in a few words: whether a command that is run again would write the same. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { ModelFolder } from "../model/load.js";

/** By the names of parameters; plain JSON. */
export type Identity = Readonly<Record<string, unknown>>;

/** Of a task on a model, with an adapter or without, as it is computed, and the text of its rows. */
export const identityOf = (
  task: string,
  { dir, adapter, config: { compute } }: Pick<ModelFolder, "dir" | "adapter" | "config">,
  text: string,
  options: object,
): Identity => ({
  task,
  model: modelDigest(dir),
  ...(adapter === null ? {} : { adapter: modelDigest(adapter.path) }),
  compute,
  data: digest(text),
  ...options,
});

/** The first 64 bits of SHA-256, in hexadecimal. */
const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);

/** Of a folder's JSON and templates the contents; of weights, which may be many gigabytes, size and time of the last change. */
function modelDigest(dir: string): string {
  const told = readdirSync(dir)
    .sort()
    .map((name) => {
      const path = join(dir, name);
      if (/\.(json|jinja)$/.test(name)) return [name, digest(readFileSync(path, "utf8"))];
      if (!name.endsWith(".safetensors")) return [];
      const { size, mtimeMs } = statSync(path);
      return [name, size, mtimeMs];
    });
  return digest(JSON.stringify(told));
}
