/** A model folder in which something is wrong: every command that uses a model says what in one line, and ends with code 2. */
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { open as openScorer } from "../../pipelines/tasks/serve.js";
import { writeRewardAdapter } from "../distill/reward-folder.js";
import { setKeys } from "../model/folder.js";
import { fixture } from "../model/golden.js";
import { heddle, newFolder, rowsFile } from "./command.js";

const arithmetic = "arithmetic/teacher";
const sharded = "models/gemma2-tiny-bf16-sharded";

/** A copy of a fixture in a new folder, under the name "model". */
async function damaged(path: string, damage: (model: string) => void | Promise<void>): Promise<string> {
  const { dir } = rowsFile([{ ids: [2, 5], answer: "2" }]);
  const model = join(dir, "model");
  await cp(fixture(path), model, { recursive: true });
  await damage(model);
  return dir;
}

/** Overwrites one bf16 value of a tensor. */
function setValue(model: string, tensor: string, index: number, bits: number): void {
  const path = join(model, "model.safetensors");
  const bytes = readFileSync(path);
  const headerBytes = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<
    string,
    { data_offsets: number[] }
  >;
  bytes.writeUInt16LE(bits, 8 + headerBytes + header[tensor]!.data_offsets[0]! + 2 * index);
  writeFileSync(path, bytes);
}

const cases: [
  name: string,
  fixture: string,
  damage: (model: string) => void | Promise<void>,
  message: string | RegExp,
][] = [
  [
    "no config.json",
    arithmetic,
    (model) => rmSync(join(model, "config.json")),
    "model/config.json: no such file, expected the config.json of a Hugging Face model folder",
  ],
  [
    "a config.json that is cut off",
    arithmetic,
    (model) => truncateSync(join(model, "config.json"), 20),
    /^error: model\/config\.json: not valid JSON \(.*\)\n$/,
  ],
  [
    "another kind of model",
    arithmetic,
    (model) => setKeys(join(model, "config.json"), { model_type: "llama" }),
    'model/config.json: "model_type" is "llama", expected one of gemma2, gemma3_text, gemma3',
  ],
  [
    "no weights",
    arithmetic,
    (model) => rmSync(join(model, "model.safetensors")),
    "model: holds neither model.safetensors nor model.safetensors.index.json",
  ],
  [
    "weights that are cut off",
    arithmetic,
    (model) => truncateSync(join(model, "model.safetensors"), 100_000),
    "model/model.safetensors: header describes 1675520 bytes of tensors, found 95056: the file is truncated",
  ],
  [
    "a shard too few",
    sharded,
    (model) => rmSync(join(model, "model-00003-of-00004.safetensors")),
    "model: shard model-00003-of-00004.safetensors is missing; the index has 13 tensors in it, " +
      '"model.layers.2.input_layernorm.weight" first',
  ],
  [
    "a weight that is NaN",
    arithmetic,
    (model) => setValue(model, "model.layers.1.mlp.up_proj.weight", 7, 0x7fc0),
    'model: tensor "model.layers.1.mlp.up_proj.weight" is NaN at index 7, expected finite numbers',
  ],
  [
    "a weight that is infinite",
    arithmetic,
    (model) => setValue(model, "model.norm.weight", 0, 0xff80),
    'model: tensor "model.norm.weight" is -Infinity at index 0, expected finite numbers',
  ],
  [
    "a config that the weights do not fit",
    arithmetic,
    (model) => setKeys(join(model, "config.json"), { intermediate_size: 256 }),
    'model: tensor "model.layers.0.mlp.down_proj.weight" has shape [128,384], expected [128,256] by config.json',
  ],
];

describe.each(cases)("%s", (_, path, damage, message) => {
  test("heddle score", async () => {
    const dir = await damaged(path, damage);
    const stderr = typeof message === "string" ? `error: ${message}\n` : expect.stringMatching(message);
    const args = ["score", "--model", "model", "--data", "rows.jsonl", "--out", "out.jsonl"];
    expect(await heddle(dir, ...args)).toEqual({ code: 2, stdout: "", stderr });
  });
});

const nan = (model: string) => setValue(model, "model.norm.weight", 3, 0x7fc0);
const nanMessage = 'error: model: tensor "model.norm.weight" is NaN at index 3, expected finite numbers\n';

test.each([
  ["generate", "--data", "rows.jsonl", "--out", "out.jsonl"],
  ["eval", "--data", "rows.jsonl"],
  ["serve", "--port", "0"],
])("heddle %s says it, too", async (command, ...flags) => {
  const { code, stdout, stderr } = await heddle(await damaged(arithmetic, nan), command, "--model", "model", ...flags);
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr.replace(/^loading model; .*\n/, "")).toBe(nanMessage);
});

test("a folder that is no model", async () => {
  const dir = newFolder();
  expect(await heddle(dir, "serve", "--model", ".", "--port", "0")).toEqual({
    code: 2,
    stdout: "",
    stderr: "error: config.json: no such file, expected the config.json of a Hugging Face model folder\n",
  });
});

test("heddle serve refuses a classifier, and an adapter that makes one of a language model", async () => {
  const dir = newFolder();
  const adapter = join(dir, "adapter");
  await mkdir(adapter);
  await writeRewardAdapter(fixture(arithmetic), adapter);
  await cp(fixture("models/gemma2-tiny-reward"), join(dir, "judge"), { recursive: true });
  const refused = async (...flags: string[]) => {
    const { code, stderr } = await heddle(dir, "serve", "--port", "0", ...flags);
    expect(code).toBe(2);
    return stderr;
  };
  const expected = "expected a language model; `heddle score` takes both";
  expect(await refused("--model", "judge")).toBe(
    `error: judge/config.json: describes a model for sequence classification (3 labels), ${expected}\n`,
  );
  const ofAdapter = `adapter_model.safetensors: holds the head of a model for sequence classification (1 labels), ${expected}`;
  expect(await refused("--model", fixture(arithmetic), "--adapter", "adapter")).toBe(`error: adapter/${ofAdapter}\n`);
  // The process that computes.
  await expect(openScorer({ model: fixture(arithmetic), adapter })).rejects.toThrow(`${adapter}/${ofAdapter}`);
});
