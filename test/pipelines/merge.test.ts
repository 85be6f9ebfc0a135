// `heddle merge` as a user starts it: what it prints, killed at any instant, on a disk that is full.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fromFloat32, type NamedTensor, writeCheckpoint } from "safetensors-ts";
import { beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../config/paths.js";
import { heddle, newFolder, startHeddle } from "./command.js";

let folder: string;

const WAVE = Float32Array.from({ length: 2 ** 16 }, (_, i) => Math.sin(i));
const wave = (i: number) => WAVE[i % WAVE.length]!;

/** A bfloat16 model of `layers` layers of `size` weights and a norm; models of other phases differ everywhere. */
async function model(name: string, phase: number, layers: number, size: number): Promise<void> {
  const tensors = function* (): Generator<NamedTensor> {
    for (let layer = 0; layer < layers; layer++) {
      const values = Float32Array.from({ length: size }, (_, i) => wave(i + layer) + 0.1 * wave(phase * i));
      yield {
        name: `model.layers.${layer}.w`,
        dtype: "BF16",
        shape: [size / 64, 64],
        data: fromFloat32(values, "BF16"),
      };
    }
    yield {
      name: "model.norm.weight",
      dtype: "BF16",
      shape: [2],
      data: fromFloat32(Float32Array.of(1, phase), "BF16"),
    };
  };
  await writeCheckpoint(join(folder, name), tensors());
  writeFileSync(join(folder, name, "config.json"), '{"model_type": "gemma2", "torch_dtype": "bfloat16"}\n');
}

const recipe = (name: string, method: string, model = "small") => {
  const weigh = method === "warp" ? "" : ", parameters: {weight: 0.5, density: 0.5}";
  writeFileSync(
    join(folder, name),
    `merge_method: ${method}\nbase_model: ${model}-base\nmodels: [{model: ${model}-a${weigh}}, {model: ${model}-b${weigh}}]\n`,
  );
};

beforeAll(async () => {
  folder = newFolder();
  for (const [i, name] of ["base", "a", "b"].entries()) {
    await model(`small-${name}`, i, 2, 2 ** 12);
    await model(`large-${name}`, i, 12, 2 ** 21);
  }
  recipe("ties.yml", "ties");
  recipe("warp.yml", "warp");
  recipe("large.yml", "ties", "large");
});

const digest = (out: string) =>
  createHash("sha256")
    .update(readFileSync(join(folder, out, "model.safetensors")))
    .digest("hex");
/** What is in the folder and begins with the name, hidden siblings too. */
const siblings = (out: string) => readdirSync(folder).filter((name) => name.replace(/^\./, "").startsWith(out));

describe("heddle merge", () => {
  test("writes a whole model folder and says so", async () => {
    const { code, stdout, stderr } = await heddle(folder, "merge", "warp.yml", "told");
    expect({ code, stdout }).toEqual({ code: 0, stdout: "wrote told\n" });
    expect(stderr).toMatch(/^merge: 17 kB\nmerge: 17 kB done in 0s(, [\d.]+ [MG]B\/s)?\n$/);
    expect(readdirSync(join(folder, "told"))).toEqual(expect.arrayContaining(["config.json", "model.safetensors"]));
    expect(siblings("told")).toEqual(["told"]);
  });

  test("--dry-run tells what would be done, and does nothing", async () => {
    const { code, stdout } = await heddle(folder, "merge", "warp.yml", "dry", "--dry-run");
    expect(code).toBe(0);
    expect(stdout).toContain("8,194");
    expect(stdout.split("\n").map((line) => line.split(/\s{2,}/)[0])).toEqual(
      expect.arrayContaining(["method", "models", "tensors", "parameters", "to read", "to write", "time"]),
    );
    expect(siblings("dry")).toEqual([]);
  });

  test("--out-shard-size cuts the weights into files with an index", async () => {
    expect((await heddle(folder, "merge", "ties.yml", "cut", "--out-shard-size", "10KB")).code).toBe(0);
    expect(readdirSync(join(folder, "cut")).filter((name) => name.startsWith("model"))).toEqual([
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ]);
  });

  test("--diagnostics writes the geometry of each layer", async () => {
    expect((await heddle(folder, "merge", "warp.yml", "seen", "--diagnostics", "geometry.json")).code).toBe(0);
    const { groups } = JSON.parse(readFileSync(join(folder, "geometry.json"), "utf8"));
    expect(groups.map(({ group }: { group: string }) => group)).toEqual([
      "model.layers.0",
      "model.layers.1",
      "model.norm.weight",
    ]);
    expect(groups[0]).toMatchObject({ tensors: 1, norms: [expect.any(Number), expect.any(Number)] });
    expect(groups[0].signConflicts).toBeGreaterThan(0.1);
  });

  test("all mistakes of a recipe come at once, with exit code 2, and nothing is written", async () => {
    writeFileSync(join(folder, "bad.yml"), "merge_method: tise\nmodels:\n- model: a\n  weight: 1\n");
    const { code, stderr } = await heddle(folder, "merge", "bad.yml", "never");
    expect(code).toBe(2);
    expect(stderr).toContain("bad.yml:1: merge_method: ");
    expect(stderr).toContain("bad.yml:4: models[0].weight: unknown key; expected one of model, parameters\n");
    expect(siblings("never")).toEqual([]);
  });

  test("loads no TensorFlow", () => {
    const module = new URL("dist/merge/merge-recipe.js", packageRoot).href;
    const script = `
      await import(${JSON.stringify(module)});
      console.log(process.report.getReport().sharedObjects.filter((path) => /tensorflow|tfjs/.test(path)).length);
    `;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    expect(stdout).toBe("0\n");
  });
});

describe("a merge that is killed", () => {
  let expected: string;
  let duration: number;
  beforeAll(async () => {
    const began = performance.now();
    expect((await heddle(folder, "merge", "large.yml", "whole", "--workers", "2")).code).toBe(0);
    duration = performance.now() - began;
    expected = digest("whole");
  });

  test("goes on with --resume to the same bits, at 30 instants, and leaves nothing else", async () => {
    let resumed = 0;
    for (let i = 0; i < 30; i++) {
      rmSync(join(folder, "killed"), { recursive: true, force: true });
      const child = startHeddle(folder, "merge", "large.yml", "killed", "--workers", "2");
      const ended = new Promise((resolve) => child.once("close", resolve));
      // Instants that cover the merge evenly, in an order of their own.
      await sleep((((7 * i) % 30) / 30) * duration);
      child.kill("SIGKILL");
      await ended;
      if (!existsSync(join(folder, "killed"))) {
        if (existsSync(join(folder, ".killed.partial", "journal.jsonl"))) resumed++;
        const { code, stderr } = await heddle(folder, "merge", "large.yml", "killed", "--resume", "--workers", "2");
        expect(code, stderr).toBe(0);
      }
      expect(digest("killed"), `killed at instant ${i}`).toBe(expected);
      expect(siblings("killed")).toEqual(["killed"]);
    }
    expect(resumed).toBeGreaterThan(5);
  }, 600_000);

  test("by Ctrl-C ends with 75, says how to go on, and does not do again what is done", async () => {
    const child = startHeddle(folder, "merge", "large.yml", "stopped", "--workers", "1");
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const ended = new Promise((resolve) => child.once("close", resolve));
    const journal = join(folder, ".stopped.partial", "journal.jsonl");
    while (!existsSync(journal) || readFileSync(journal, "utf8").split("\n").length < 3) await sleep(5);
    child.kill("SIGINT");
    expect(await ended).toBe(75);
    expect(stderr).toContain("interrupted by SIGINT; run the same command with --resume to go on\n");
    const again = await heddle(folder, "merge", "large.yml", "stopped", "--resume");
    expect(again.stderr).toMatch(/^merge: goes on after \d+ of 51 MB\n/);
    expect(digest("stopped")).toBe(expected);
  });

  test("is begun anew where the machine has been down since", async () => {
    mkdirSync(join(folder, ".down.partial"));
    writeFileSync(join(folder, ".down.partial", "journal.jsonl"), '{"identity":"any","boot":"an earlier one"}\n');
    expect((await heddle(folder, "merge", "ties.yml", "down", "--resume")).code).toBe(0);
    expect(siblings("down")).toEqual(["down"]);
  });

  test("is not gone on with by another recipe", async () => {
    mkdirSync(join(folder, ".other.partial"));
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    writeFileSync(
      join(folder, ".other.partial", "journal.jsonl"),
      `${JSON.stringify({ identity: "of another", boot })}\n`,
    );
    const { code, stderr } = await heddle(folder, "merge", "ties.yml", "other", "--resume");
    expect(code).toBe(2);
    expect(stderr).toMatch(/\.other\.partial: is the unfinished merge of another recipe or other options/);
    // It may be gone on with by the right one.
    expect(existsSync(join(folder, ".other.partial", "journal.jsonl"))).toBe(true);
  });
});

/** Whether this machine lets us mount a small disk. */
function mountSmall(path: string, size: string): boolean {
  mkdirSync(path);
  return spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path]).status === 0;
}

test("a full disk is told in one line; nothing is left, and the inputs are as they were", async (context) => {
  const disk = join(folder, "disk");
  if (!mountSmall(disk, "20m")) context.skip();
  try {
    const before = digest("large-a");
    const { code, stderr } = await heddle(folder, "merge", "large.yml", "disk/out");
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /error: disk\/out: cannot be written, the disk is full: the model takes 51 MB, \d+ MB are free\n$/,
    );
    expect(readdirSync(disk)).toEqual([]);
    expect(digest("large-a")).toBe(before);
  } finally {
    execFileSync("umount", [disk]);
  }
});
