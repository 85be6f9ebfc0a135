// How tensors are cut into files against huggingface_hub (golden/shards.json, written by golden/shards.py).
import { readFileSync } from "node:fs";
import { layOutCheckpoint, type TensorSpec } from "safetensors-ts";
import { describe, expect, test } from "vitest";

interface Case {
  readonly case: string;
  readonly limit: number;
  readonly tensors: readonly [name: string, bytes: number][];
  /** Files and the tensors in each, in the order in which they came. */
  readonly files: readonly [file: string, tensors: string[]][];
  /** Null where there is one file. */
  readonly index: string | null;
}

const golden = new URL("golden/shards.json", import.meta.url);
const cases = JSON.parse(readFileSync(golden, "utf8")) as Case[];

describe("layOutCheckpoint cuts as huggingface_hub does", () => {
  test.each(cases)("$case", ({ limit, tensors, files, index }) => {
    const specs = tensors.map(([name, bytes]): TensorSpec => ({ name, dtype: "U8", shape: [bytes] }));
    const layout = layOutCheckpoint(specs, { shardSize: limit });
    // Within a file the order is the format's.
    const found = layout.shards.map(({ name, tensors }) => [name, tensors.map(({ tensor }) => tensor.name).sort()]);
    expect(found).toEqual(files.map(([name, members]) => [name, [...members].sort()]));
    expect(layout.index).toBe(index);
  });
});
