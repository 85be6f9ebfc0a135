// The files that a merge reads, by plain positions: opened when first read, in the thread that reads.
import { closeSync, openSync, readSync } from "node:fs";
import { SafetensorsError } from "safetensors-ts";
import type { Files } from "./evaluate.js";

/** Files that stay open until `close()`. */
export function openFiles(paths: readonly string[]): Files & { close(): void } {
  const opened = new Map<number, number>();
  const descriptorOf = (file: number) => {
    const known = opened.get(file) ?? openSync(paths[file]!, "r");
    opened.set(file, known);
    return known;
  };
  return {
    paths,
    read(file, position, into) {
      const descriptor = descriptorOf(file);
      for (let done = 0; done < into.length; ) {
        const count = readSync(descriptor, into, done, into.length - done, position + done);
        if (count === 0) {
          throw new SafetensorsError(paths[file], `ends at byte ${position + done}: truncated since it was opened`);
        }
        done += count;
      }
    },
    close() {
      for (const descriptor of opened.values()) closeSync(descriptor);
      opened.clear();
    },
  };
}
