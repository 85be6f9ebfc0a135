import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fromFloat32, openCheckpoint, SafetensorsError, toFloat32, writeSafetensors } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { addLoraRows, withAdapter } from "../../merge/lora.js";
import type { LoraSource, Source, TensorPlace } from "../../merge/plan.js";
import { checkAdapterFits, openAdapter } from "../../model/adapter.js";
import { ModelError } from "../../model/errors.js";
import { copyOf, newFolder, setKeys } from "../model/folder.js";
import { fixture } from "../model/golden.js";

const LORA = fixture("models/gemma2-tiny-lora");
const MODEL = fixture("models/gemma2-tiny");
const PLACE: TensorPlace = { file: 0, position: 8, dtype: "F32", shape: [2, 3] };
const SOURCE: Source = { kind: "tensor", place: PLACE };

/** An adapter whose tensors are given by shape. */
async function makeAdapter(shapes: Record<string, readonly number[]>, config: Record<string, unknown> = {}) {
  const dir = await newFolder();
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const data = new Uint8Array(4 * shape.reduce((product, size) => product * size, 1));
    return { name: `base_model.model.${name}`, dtype: "F32", shape, data } as const;
  });
  await writeSafetensors(join(dir, "adapter_model.safetensors"), tensors);
  await writeFile(
    join(dir, "adapter_config.json"),
    JSON.stringify({ peft_type: "LORA", r: 2, lora_alpha: 3, ...config }),
  );
  return dir;
}

const PAIR = { "m.q.lora_A.weight": [2, 3], "m.q.lora_B.weight": [2, 2] };

describe("an adapter on a model", () => {
  test("gives the weights that PEFT's merge_and_unload gives", async () => {
    const adapter = await openAdapter(LORA);
    const [base, golden, tensors] = await Promise.all(
      [MODEL, join(LORA, "golden.safetensors"), adapter.file].map((path) => openCheckpoint(path)),
    );
    const merged = golden!.tensors.filter(({ name }) => name.startsWith("merged."));
    expect(merged).toHaveLength(8);
    for (const { name, shape } of merged) {
      const weight = name.slice("merged.".length);
      const source = withAdapter(SOURCE, weight, adapter, 7) as LoraSource;
      const { a, b, scale } = adapter.updates.get(weight)!;
      expect(source).toEqual({
        kind: "lora",
        of: SOURCE,
        a: { file: 7, position: a.position, dtype: "F32", shape: [8, shape[1]] },
        b: { file: 7, position: b.position, dtype: "F32", shape: [shape[0], 8] },
        scale: 4,
      });
      // PEFT had read this base as bfloat16.
      const values = toFloat32(fromFloat32(await base!.readFloat32(weight), "BF16"), "BF16");
      const [read, columns] = [(of: typeof a) => tensors!.readFloat32(of.name), shape[1]!];
      addLoraRows(values, 0, await read(a), await read(b), columns, 8, scale);
      const expected = await golden!.readFloat32(name);
      expect(Math.max(...values.map((x, i) => Math.abs(x - expected[i]!)))).toBeLessThan(1e-6);
    }
    expect(() =>
      checkAdapterFits(adapter, MODEL, (name) => base!.tensors.find((t) => t.name === name)?.shape),
    ).not.toThrow();
    expect(withAdapter(SOURCE, "model.norm.weight", adapter, 7)).toBe(SOURCE);
    await Promise.all([base, golden, tensors].map((file) => file!.close()));
  });

  test("tensors that are saved whole take the place of the model's", async () => {
    const adapter = await openAdapter(
      await makeAdapter({
        ...PAIR,
        "lm_head.weight": [4, 3],
        "n.modules_to_save.weight": [3],
        "m.q.base_layer.bias": [2],
        "m.q.base_layer.weight": [2, 3],
      }),
    );
    expect([...adapter.replaced.keys()].sort()).toEqual(["lm_head.weight", "m.q.bias", "m.q.weight", "n.weight"]);
    const head = adapter.replaced.get("lm_head.weight")!;
    const place = { file: 1, position: head.position, dtype: "F32", shape: [4, 3] };
    expect(withAdapter(SOURCE, "lm_head.weight", adapter, 1)).toEqual({ kind: "tensor", place });
    expect(withAdapter(SOURCE, "m.q.weight", adapter, 1)).toMatchObject({
      kind: "lora",
      of: { kind: "tensor", place: { file: 1 } },
    });
    const shapes: Record<string, number[]> = { "m.q.weight": [2, 3], "m.q.bias": [2], "n.weight": [3] };
    expect(() => checkAdapterFits(adapter, MODEL, (name) => shapes[name] ?? [5, 3])).toThrow(
      new SafetensorsError(
        adapter.file,
        '"base_model.model.lm_head.weight" has shape [4,3], expected [5,3] as the model\'s "lm_head.weight"',
        head.name,
      ),
    );
  });

  test("must have shapes that fit the weight", async () => {
    const adapter = await openAdapter(await makeAdapter(PAIR));
    const name = "base_model.model.m.q.lora_A.weight";
    expect(() => checkAdapterFits(adapter, MODEL, () => [3, 3])).toThrow(
      new SafetensorsError(
        adapter.file,
        `"base_model.model.m.q.lora_B.weight" of shape [2,2] times "${name}" of shape [2,3] does not fit "m.q.weight" of shape [3,3]`,
        name,
      ),
    );
  });

  test("must be one for this model", async () => {
    const adapter = await openAdapter(await makeAdapter(PAIR));
    expect(() => checkAdapterFits(adapter, "other", () => undefined)).toThrow(
      new ModelError(
        adapter.file,
        'is for a model with a tensor "m.q.weight", which other has not: an adapter for another base?',
      ),
    );
  });
});

describe("openAdapter", () => {
  const scaleOf = async (config: Record<string, unknown>) =>
    (await openAdapter(await makeAdapter(PAIR, config))).updates.get("m.q.weight")!.scale;

  test("scales by alpha / r, by alpha / sqrt(r) where rank-stabilised", async () => {
    expect(await scaleOf({})).toBe(1.5);
    expect(await scaleOf({ use_rslora: true })).toBeCloseTo(3 / Math.SQRT2, 12);
  });

  test("patterns match the end of a module's name, from a dot on", async () => {
    expect(await scaleOf({ alpha_pattern: { k: 5, q: 8, "m.q": 9 } })).toBe(4);
    expect(await scaleOf({ alpha_pattern: { "m\\.[qk]": 8 }, r: 7, rank_pattern: { q: 2 } })).toBe(4);
    expect(await scaleOf({ alpha_pattern: { m: 8, "\\.q": 8 } })).toBe(1.5);
  });

  test.each([
    [{ peft_type: "LOHA" }, '"peft_type" is "LOHA", expected "LORA"'],
    [{ use_dora: true }, '"use_dora" is true, which is not supported'],
    [{ fan_in_fan_out: true }, '"fan_in_fan_out" is true, which is not supported'],
    [{ layer_replication: [[0, 2]] }, '"layer_replication" is [[0,2]], which is not supported'],
    [{ new_in_2027: 1 }, '"new_in_2027" is 1, which is not supported'],
    [
      { init_lora_weights: "pissa" },
      '"init_lora_weights" is "pissa", which changes the base: convert it to a plain LoRA first',
    ],
    [{ r: "8" }, '"r" is "8", expected a number above 0'],
    [{ alpha_pattern: { q: 0 } }, '"alpha_pattern.q" is 0, expected a number above 0'],
    [{ rank_pattern: { "(": 1 } }, '"rank_pattern" has "(", expected a regular expression'],
  ])("refuses the config %o", async (config, problem) => {
    const dir = await copyOf("models/gemma2-tiny-lora");
    const path = join(dir, "adapter_config.json");
    await setKeys(path, config);
    await expect(openAdapter(dir)).rejects.toThrow(new ModelError(path, problem));
  });

  test("refuses matrices of another rank than the config's, and half pairs", async () => {
    const other = await makeAdapter(PAIR, { r: 4 });
    const name = "base_model.model.m.q.lora_A.weight";
    await expect(openAdapter(other)).rejects.toThrow(
      new SafetensorsError(
        join(other, "adapter_model.safetensors"),
        `"${name}" has shape [2,3] and "base_model.model.m.q.lora_B.weight" shape [2,2], expected [4,columns] and [rows,4]`,
        name,
      ),
    );
    const half = await makeAdapter({ "m.q.lora_A.weight": [2, 3] });
    await expect(openAdapter(half)).rejects.toThrow(
      new ModelError(join(half, "adapter_model.safetensors"), 'has lora_A of "m.q", and no lora_B'),
    );
  });

  test("refuses tensors that it knows no place for, by name", async () => {
    const dir = await makeAdapter({ "m.embed.lora_embedding_A": [2, 3] });
    const name = "base_model.model.m.embed.lora_embedding_A";
    const expected = "base_model.model.MODULE.lora_A.weight, .lora_B.weight or .weight";
    await expect(openAdapter(dir)).rejects.toThrow(
      new SafetensorsError(
        join(dir, "adapter_model.safetensors"),
        `tensor "${name}" is not supported, expected ${expected}`,
        name,
      ),
    );
  });

  test("refuses folders without an adapter, and pickled tensors", async () => {
    await expect(openAdapter(MODEL)).rejects.toThrow(
      new ModelError(MODEL, "has no adapter_config.json, expected the folder of a PEFT adapter"),
    );
    const dir = await copyOf("models/gemma2-tiny-lora");
    await rm(join(dir, "adapter_model.safetensors"));
    await expect(openAdapter(dir)).rejects.toThrow(
      new ModelError(dir, "has no tensors, expected adapter_model.safetensors"),
    );
    await writeFile(join(dir, "adapter_model.bin"), "");
    await expect(openAdapter(dir)).rejects.toThrow(
      new ModelError(dir, "has adapter_model.bin, expected adapter_model.safetensors"),
    );
  });
});

describe("addLoraRows", () => {
  test("adds scale B A to rows of the weight", () => {
    const out = Float32Array.of(1, 1, 1, 1);
    // B = [[9, 9], [1, 2], [0, -1]], A = [[1, 10], [100, 1000]], rows 1 and 2.
    addLoraRows(out, 1, Float32Array.of(1, 10, 100, 1000), Float32Array.of(9, 9, 1, 2, 0, -1), 2, 2, 0.5);
    expect([...out]).toEqual([1 + 100.5, 1 + 1005, 1 - 50, 1 - 500]);
  });

  test("is the sum over ranks, whatever their number", () => {
    for (let rank = 1; rank <= 9; rank++) {
      const a = Float32Array.from({ length: rank * 3 }, (_, i) => i + 1);
      const b = Float32Array.from({ length: rank * 2 }, (_, i) => 2 * i - 3);
      const out = new Float32Array(6);
      addLoraRows(out, 0, a, b, 3, rank, 2);
      const expected = Array.from({ length: 6 }, (_, i) => {
        const [row, column] = [Math.floor(i / 3), i % 3];
        return Array.from({ length: rank }, (_, r) => 2 * b[row * rank + r]! * a[r * 3 + column]!).reduce(
          (x, y) => x + y,
        );
      });
      expect([...out]).toEqual(expected);
    }
  });
});
