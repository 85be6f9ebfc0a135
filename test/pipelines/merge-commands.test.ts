import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "@commander-js/extra-typings";
import { openCheckpoint, serialize } from "safetensors-ts";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { runProgram } from "../../pipelines/exit.js";
import { inspectCommand } from "../../pipelines/inspect.js";
import { litiCommand } from "../../pipelines/liti.js";
import { slerpCommand } from "../../pipelines/slerp.js";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url));
const sharded = fixture("gemma2-tiny-bf16-sharded");

let folder: string;
let stdout: string;
let stderr: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "heddle-merge-"));
  stdout = stderr = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    stdout += text;
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    stderr += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Runs a command line; returns the exit code. */
function heddle(...args: string[]): Promise<number> {
  const program = new Command("heddle").addCommand(inspectCommand).addCommand(slerpCommand).addCommand(litiCommand);
  return runProgram(program, args);
}

function model(name: string, ...values: number[]): string {
  const path = join(folder, name);
  mkdirSync(path);
  writeFileSync(join(path, "config.json"), '{"torch_dtype": "float32"}');
  const data = new Uint8Array(Float32Array.from(values).buffer);
  const tensors = [{ name: "model.layers.0.w", dtype: "F32" as const, shape: [values.length], data }];
  writeFileSync(join(path, "model.safetensors"), serialize(tensors, { format: "pt" }));
  return path;
}

async function weights(path: string): Promise<number[]> {
  const checkpoint = await openCheckpoint(path);
  const values = await checkpoint.readFloat32("model.layers.0.w");
  await checkpoint.close();
  return [...values];
}

describe("heddle inspect", () => {
  test("prints counts, metadata and one line a tensor, layer 10 after layer 9", async () => {
    const path = join(folder, "x.safetensors");
    const tensor = (name: string, ...shape: number[]) => {
      return { name, dtype: "BF16" as const, shape, data: new Uint8Array(2 * shape.reduce((a, b) => a * b, 1)) };
    };
    writeFileSync(
      path,
      serialize([tensor("h.9.w", 40, 50), tensor("h.10.w", 2), tensor("b\u001b[31m")], { format: "pt" }),
    );
    expect(await heddle("inspect", path)).toBe(0);
    expect(stdout).toBe(
      [
        `${path}: 1 file, 3 tensors, 2,003 parameters, 4.01 kB`,
        "format: pt",
        "",
        "b\\u001b[31m  BF16  []        2 B",
        "h.9.w        BF16  [40, 50]  4.00 kB",
        "h.10.w       BF16  [2]       4 B",
        "",
      ].join("\n"),
    );
  });

  test("--json prints one object", async () => {
    expect(await heddle("inspect", sharded, "--json")).toBe(0);
    const summary = JSON.parse(stdout);
    expect(summary).toMatchObject({ path: sharded, metadata: { format: "pt" }, parameters: 222272, bytes: 444544 });
    expect(summary.files).toHaveLength(4);
    expect(summary.tensors[0]).toEqual({
      name: "model.embed_tokens.weight",
      dtype: "BF16",
      shape: [384, 64],
      bytes: 49152,
      file: "model-00001-of-00004.safetensors",
    });
  });

  test("takes the folder of an adapter", async () => {
    expect(await heddle("inspect", fixture("gemma2-tiny-lora"))).toBe(0);
    expect(stdout).toMatch(/gemma2-tiny-lora: 1 file, \d+ tensors/);
    expect(stdout).toContain("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight  F32");
  });

  test("says in one line what is wrong, with exit code 2", async () => {
    const missing = join(folder, "missing");
    expect(await heddle("inspect", missing)).toBe(2);
    expect(stderr).toBe(
      `error: command-argument value '${missing}' is invalid for argument 'path'. ` +
        `no such file or folder (looked in ${process.cwd()})\n`,
    );
  });
});

describe("heddle slerp", () => {
  test("merges, prints angles and norms, and writes a model folder", async () => {
    const [init, a, b] = [model("init", 0, 0), model("a", 1, 0), model("b", 0, 1)];
    const out = join(folder, "out");
    expect(await heddle("slerp", "--init", init, "--run", a, "--run", b, "--out", out, "--eta", "0.5")).toBe(0);
    expect(stdout).toBe(
      [
        "group           angle  |run 1|  |run 2|  |merged|",
        "model.layers.0  90.0°    1.000    1.000     1.000",
        `wrote ${out}`,
        "",
      ].join("\n"),
    );
    const half = Math.fround(Math.SQRT1_2 / 2);
    expect(await weights(out)).toEqual([half, half]);
    expect(readdirSync(out)).toEqual(["README.md", "config.json", "model.safetensors"]);
  });

  test("stores what --dtype says and replaces a model only with --overwrite", async () => {
    const [init, a] = [model("init", 0), model("a", 1)];
    const args = ["slerp", "--init", init, "--run", a, a, "--out", join(folder, "out"), "--dtype", "bfloat16"];
    expect(await heddle(...args)).toBe(0);
    expect(readFileSync(join(folder, "out", "config.json"), "utf8")).toBe('{"torch_dtype": "bfloat16"}');
    expect(await heddle(...args)).toBe(2);
    expect(stderr).toBe(
      `error: ${join(folder, "out")}: is there already; give a new folder, or overwrite: true (--overwrite)\n`,
    );
    expect(await heddle(...args, "--overwrite")).toBe(0);
  });

  test("needs two runs of the init's shapes", async () => {
    const [init, a, long] = [model("init", 0), model("a", 1), model("long", 1, 2)];
    const merge = (...runs: string[]) =>
      heddle("slerp", "--init", init, "--run", ...runs, "--out", join(folder, "out"));
    expect(await merge(a)).toBe(2);
    expect(await merge(a, long)).toBe(2);
    expect(stderr).toBe(
      "error: --run: expected two or more (for one model, use heddle liti)\n" +
        `error: ${long}: tensor "model.layers.0.w" has shape [2], expected [1] as in ${init}\n`,
    );
  });

  test.each([
    [["--eta", "1.5"], "error: option '--eta <number>' argument '1.5' is invalid. expected a number, from 0 to 1\n"],
    [
      ["--granularity", "block"],
      "error: option '--granularity <unit>' argument 'block' is invalid. Allowed choices are tensor, layer, model.\n",
    ],
    [
      ["--dtype", "int8"],
      "error: option '--dtype <dtype>' argument 'int8' is invalid. Allowed choices are float32, bfloat16, float16, input.\n",
    ],
  ])("refuses %j", async (flags, message) => {
    const init = model("init", 0);
    expect(await heddle("slerp", "--init", init, "--run", init, init, "--out", join(folder, "out"), ...flags)).toBe(2);
    expect(stderr).toBe(message);
  });
});

describe("heddle liti", () => {
  test("goes eta of the way from the init to the model", async () => {
    const [init, tuned, out] = [model("init", 1, 2), model("tuned", 5, 0), join(folder, "out")];
    expect(await heddle("liti", "--init", init, "--model", tuned, "--out", out, "--eta", "0.25")).toBe(0);
    expect(stdout).toBe(`wrote ${out}\n`);
    expect(await weights(out)).toEqual([2, 1.5]);
  });

  test("names a folder that is not there", async () => {
    const init = model("init", 1);
    expect(await heddle("liti", "--init", init, "--model", join(folder, "none"), "--out", join(folder, "out"))).toBe(2);
    expect(stderr).toContain(`argument '${join(folder, "none")}' is invalid. no such folder`);
  });
});
