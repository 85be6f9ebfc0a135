import { layOutCheckpoint, serialize, type TensorSpec } from "safetensors-ts";
import { describe, expect, test } from "vitest";

const u8 = (name: string, size: number): TensorSpec => ({ name, dtype: "U8", shape: [size] });

describe("layOutCheckpoint", () => {
  test("says where each tensor is: the header, the tensors at their positions, and nothing else", () => {
    const data = Uint8Array.of(1, 2, 3);
    const tensors = [
      { ...u8("b", 3), data },
      { name: "a", dtype: "F32", shape: [1], data: new Uint8Array(4).fill(9) } as const,
    ];
    const { shards } = layOutCheckpoint(tensors, { metadata: { a: "b" } });
    expect(shards).toHaveLength(1);
    const { header, bytes, tensors: placed, name } = shards[0]!;
    expect(name).toBe("model.safetensors");
    const file = new Uint8Array(bytes);
    file.set(header);
    for (const { tensor, position, bytes: length } of placed) {
      expect(length).toBe(tensor.data.length);
      file.set(tensor.data, position);
    }
    expect(file).toEqual(serialize(tensors, { a: "b" }));
  });

  test("lays out nothing as one empty file", () => {
    const { shards, index } = layOutCheckpoint([], { metadata: {} });
    expect(shards.map(({ name, bytes }) => [name, bytes])).toEqual([["model.safetensors", 32]]);
    expect(index).toBeNull();
  });
});
