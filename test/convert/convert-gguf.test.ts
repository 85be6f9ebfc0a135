import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, toFloat32 } from "safetensors-ts";
import { describe, expect, test } from "vitest";
import { convertModel } from "../../convert/convert.js";
import { newFolder } from "../model/folder.js";
import { type Changes, gemmaGguf } from "./gemma-gguf.js";
import { ggufBytes, ggufFile } from "./gguf-bytes.js";

const options = { dtype: "float32", shardSize: 5e9 } as const;

/** The folder that a file becomes, whose path the error messages of `convert` have as FILE. */
async function converted(architecture: string, changes: Changes = {}, more: object = {}): Promise<string> {
  const from = await ggufFile(ggufBytes(gemmaGguf(architecture, changes)));
  const out = join(await newFolder(), "out");
  await convertModel({ from, out, ...options, ...more });
  return out;
}

async function valuesOf(folder: string): Promise<Map<string, { shape: readonly number[]; values: number[] }>> {
  const checkpoint = await openCheckpoint(folder);
  const all = new Map<string, { shape: readonly number[]; values: number[] }>();
  for (const { name, shape } of checkpoint.tensors) {
    all.set(name, { shape, values: [...(await checkpoint.readFloat32(name))] });
  }
  await checkpoint.close();
  return all;
}

const NAMES = [
  ["input_layernorm", "attn_norm"],
  ["self_attn.q_proj", "attn_q"],
  ["self_attn.k_proj", "attn_k"],
  ["self_attn.v_proj", "attn_v"],
  ["self_attn.o_proj", "attn_output"],
  ["post_attention_layernorm", "post_attention_norm"],
  ["pre_feedforward_layernorm", "ffn_norm"],
  ["mlp.gate_proj", "ffn_gate"],
  ["mlp.up_proj", "ffn_up"],
  ["mlp.down_proj", "ffn_down"],
  ["post_feedforward_layernorm", "post_ffw_norm"],
] as const;
const NAMES_OF_3 = [...NAMES, ["self_attn.q_norm", "attn_q_norm"], ["self_attn.k_norm", "attn_k_norm"]] as const;

describe("weights", () => {
  test.each([
    ["gemma2", NAMES],
    ["gemma3", NAMES_OF_3],
  ] as const)("of %s have the checkpoint's names and shapes; norms lose the 1 that they hold", async (kind, layer) => {
    const { tensors } = gemmaGguf(kind);
    const source = new Map(tensors!.map((tensor) => [tensor.name, tensor]));
    const names = [
      ["model.embed_tokens.weight", "token_embd.weight"],
      ["model.norm.weight", "output_norm.weight"],
      ...[0, 1].flatMap((i) =>
        layer.map(([name, from]) => [`model.layers.${i}.${name}.weight`, `blk.${i}.${from}.weight`]),
      ),
    ] as const;
    const result = await valuesOf(await converted(kind));
    expect(new Set(result.keys())).toEqual(new Set(names.map(([name]) => name)));
    for (const [name, from] of names) {
      const { shape, data } = source.get(from!)!;
      const plus = /norm/.test(name!) ? 1 : 0;
      expect(result.get(name!), name).toEqual({
        shape,
        values: [...toFloat32(data, "F32")].map((value) => Math.fround(value - plus)),
      });
    }
  });

  test("are dequantised, and rounded once to the dtype", async () => {
    // A row of Q8_0: scale 0.5, then the numbers -16 to 15.
    const row = [0x00, 0x38, ...Array.from({ length: 32 }, (_, i) => i - 16)];
    const data = Uint8Array.from(Array.from({ length: 16 }, () => row).flat());
    const changes = { tensors: { "blk.1.attn_k.weight": { shape: [16, 32], type: 8, data } } };
    const folder = await converted("gemma3", changes, { dtype: undefined });
    const result = await valuesOf(folder);
    const { values } = result.get("model.layers.1.self_attn.k_proj.weight")!;
    expect(values.slice(32, 64)).toEqual(Array.from({ length: 32 }, (_, i) => (i - 16) / 2));
    // Of the tensor 1 (token_embd): 1 + 1/1024 and 1 + 5/1024 in bfloat16, whose step is 1/128.
    expect(result.get("model.embed_tokens.weight")!.values.slice(0, 6)).toEqual([1, 1, 1, 1, 1, 1 + 1 / 128]);
    expect(JSON.parse(await readFile(join(folder, "config.json"), "utf8")).torch_dtype).toBe("bfloat16");
  });

  test("fill shards of the size that is asked for", async () => {
    // 75648 bytes; matrices are 4096, 2048, 2048, 4096 and thrice 8192 a layer: up to the first gate is one shard.
    const folder = await converted("gemma2", {}, { shardSize: 20_000 });
    const files = (await readdir(folder)).filter((name) => name.startsWith("model"));
    expect(files).toEqual([
      ...[1, 2, 3, 4, 5].map((i) => `model-0000${i}-of-00005.safetensors`),
      "model.safetensors.index.json",
    ]);
    expect(await valuesOf(folder)).toEqual(await valuesOf(await converted("gemma2")));
  });
});

test("the folder is whole: config, generation config and tokenizer", async () => {
  const folder = await converted("gemma2");
  expect((await readdir(folder)).sort()).toEqual([
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  expect(JSON.parse(await readFile(join(folder, "generation_config.json"), "utf8"))).toEqual({
    bos_token_id: 2,
    eos_token_id: 1,
    pad_token_id: 0,
  });
});

describe("errors", () => {
  /** What converting the bytes says, with FILE and OUT for the paths; nothing is written. */
  async function messageOf(bytes: Uint8Array): Promise<string> {
    const [from, folder] = [await ggufFile(bytes), await newFolder()];
    const out = join(folder, "out");
    const error = await convertModel({ from, out, ...options }).then(
      () => new Error("converted"),
      (error: Error) => error,
    );
    expect(await readdir(folder)).toEqual([]);
    return error.message.replace(from, "FILE").replace(out, "OUT");
  }
  const ofGemma = (changes: Changes, architecture = "gemma3") => messageOf(ggufBytes(gemmaGguf(architecture, changes)));

  test("an architecture that is not known", async () => {
    expect(await ofGemma({}, "llama")).toBe(
      'FILE: holds a model of architecture "llama", expected one of gemma2, gemma3',
    );
  });

  test("metadata that is missing or of another kind", async () => {
    expect(await ofGemma({ metadata: { "gemma3.block_count": undefined } })).toBe(
      'FILE: has no metadata "gemma3.block_count", expected a positive integer',
    );
    expect(await ofGemma({ metadata: { "gemma3.embedding_length": "wide" } })).toBe(
      'FILE: metadata "gemma3.embedding_length" is "wide", expected a positive integer',
    );
    expect(await ofGemma({ metadata: { "tokenizer.ggml.scores": undefined } })).toBe(
      'FILE: has no metadata "tokenizer.ggml.scores", expected a list of numbers',
    );
  });

  test("tensors that are missing, of another shape, one too many", async () => {
    const data = new Uint8Array(64);
    expect(await ofGemma({ tensors: { "blk.1.ffn_up.weight": undefined } })).toBe(
      'FILE: has no tensor "blk.1.ffn_up.weight"',
    );
    expect(await ofGemma({ tensors: { "token_embd.weight": undefined } })).toBe(
      'FILE: has no tensor "token_embd.weight"',
    );
    expect(await ofGemma({ tensors: { "token_embd.weight": { shape: [2, 8], data } } })).toBe(
      'FILE: tensor "token_embd.weight" has 2 rows, expected one for each of 6 tokens',
    );
    expect(await ofGemma({ tensors: { "blk.0.attn_norm.weight": { shape: [16], data } } })).toBe(
      'FILE: tensor "blk.0.attn_norm.weight" has shape [16], expected [32]',
    );
    expect(await ofGemma({ tensors: { "output.weight": { shape: [16], data } } })).toBe(
      'FILE: has a tensor "output.weight", which no gemma3 has',
    );
  });

  test("a quantisation that is not known", async () => {
    const tensor = { shape: [16, 32], type: 20, data: new Uint8Array(16 * 18) };
    expect(await ofGemma({ tensors: { "blk.0.attn_v.weight": tensor } })).toBe(
      'FILE: tensor "blk.0.attn_v.weight" is IQ4_NL, expected one of ' +
        "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16",
    );
  });

  test("a file cut short in its data", async () => {
    const bytes = ggufBytes(gemmaGguf("gemma3"));
    expect(await messageOf(bytes.subarray(0, bytes.length - 1))).toBe(
      `FILE: ends at byte ${bytes.length - 1}, tensor "blk.1.attn_k_norm.weight" at ${bytes.length}: ` +
        "it is cut short, get it again",
    );
  });

  test("one file of several", async () => {
    expect(await ofGemma({ metadata: { "split.count": 3 } })).toBe(
      "FILE: is one of 3 parts of a model: join them first, with llama-gguf-split --merge",
    );
  });

  test("a folder that holds something else, with and without --overwrite", async () => {
    const from = await ggufFile(ggufBytes(gemmaGguf("gemma3")));
    const out = await newFolder();
    await writeFile(join(out, "thesis.txt"), "");
    await expect(convertModel({ from, out, ...options })).rejects.toThrow(
      `${out}: is there already; give a new folder, or overwrite: true (--overwrite)`,
    );
    await expect(convertModel({ from, out, ...options, overwrite: true })).rejects.toThrow(
      `${out}: holds other files than a model; give a new or an empty folder`,
    );
    expect(await readdir(out)).toEqual(["thesis.txt"]);
  });

  test("interrupted, the folder is what it was", async () => {
    const from = await ggufFile(ggufBytes(gemmaGguf("gemma3")));
    const folder = await newFolder();
    const out = join(folder, "out");
    await mkdir(out);
    const stop = new AbortController();
    const onProgress = (done: number) => {
      if (done > 0) stop.abort(new Error("stopped"));
    };
    const conversion = convertModel({ from, out, ...options, signal: stop.signal, onProgress });
    await expect(conversion).rejects.toThrow("stopped");
    expect(await readdir(folder)).toEqual(["out"]);
    expect(await readdir(out)).toEqual([]);
  });
});
