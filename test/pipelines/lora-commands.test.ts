/** An adapter from the command line: trained, resumed, used, and refused where a model is needed. */
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { readLog } from "../../pipelines/run-folder.js";
import { heddle, newFolder } from "./command.js";
import {
  completeRun,
  differingFiles,
  filesIn,
  killPrograms,
  modelFiles,
  newWorkplace,
  startRun,
  writeConfig,
  writeRows,
} from "./training-run.js";

let cwd: string;
beforeAll(async () => {
  cwd = await newWorkplace();
});
afterEach(killPrograms);

const config = {
  lora: { r: 2, lora_alpha: 4, lora_dropout: 0.2 },
  sft: { steps: 3, batch_size: 4, learning_rate: 1e-2, save_every: 1 },
};
const adapterFiles = [
  "README.md",
  "adapter_config.json",
  "adapter_model.safetensors",
  ...modelFiles.filter((name) => !["config.json", "generation_config.json", "model.safetensors"].includes(name)),
];

test("sft leaves an adapter, the same bits where it was killed, that score takes with its base or alone", async () => {
  const whole = writeConfig(cwd, "whole", config);
  expect(await completeRun(cwd, "sft", "whole")).toMatchObject({ code: 0 });
  expect(filesIn(join(whole, "sft"))).toEqual(adapterFiles.sort());
  const killed = writeConfig(cwd, "killed", config);
  const first = startRun(cwd, "sft", "killed");
  await first.logged(killed, 1);
  await first.end("SIGKILL");
  await completeRun(cwd, "sft", "killed");
  // The model card names the folder.
  expect(differingFiles(join(whole, "sft"), join(killed, "sft"))).toEqual(["README.md"]);

  // The config says "model", the adapter where that is: it is used from any folder.
  const { base_model_name_or_path: base } = JSON.parse(readFileSync(join(whole, "sft", "adapter_config.json"), "utf8"));
  expect(base).toBe(realpathSync(join(cwd, "model")));
  writeRows(join(cwd, "ids.jsonl"), [{ ids: [2, 10, 11, 12] }]);
  const scored = async (out: string, ...model: string[]) => {
    const ended = await heddle(cwd, "score", ...model, "--data", "ids.jsonl", "--out", out);
    expect(ended.stderr).not.toMatch(/Error/);
    return readFileSync(join(cwd, out), "utf8");
  };
  const both = await scored("both.jsonl", "--model", "model", "--adapter", "runs/whole/sft");
  expect(await scored("alone.jsonl", "--model", "runs/whole/sft")).toBe(both);
  const files = ["--data", join(cwd, "ids.jsonl"), "--out", join(cwd, "elsewhere.jsonl")];
  await heddle(newFolder(), "score", "--model", join(whole, "sft"), ...files);
  expect(readFileSync(join(cwd, "elsewhere.jsonl"), "utf8")).toBe(both);
  expect(await scored("base.jsonl", "--model", "model")).not.toBe(both);
});

test("an adapter as a config's model is part of the base that learns, the result a whole model; as a teacher it is on its base", async () => {
  const first = writeConfig(cwd, "first", { ...config, lora: { r: 2 } });
  await completeRun(cwd, "sft", "first");
  const adapter = "runs/first/sft";
  const again = writeConfig(cwd, "again", { ...config, model: adapter, sft: { ...config.sft, learning_rate: 0 } });
  expect(await completeRun(cwd, "sft", "again")).toMatchObject({ code: 0 });
  expect(filesIn(join(again, "sft"))).toEqual(["README.md", ...modelFiles].sort());
  // Nothing was learnt: the model is what the adapter on its base is, but for the order of additions.
  writeRows(join(cwd, "row.jsonl"), [{ ids: [2, 10, 11, 12] }]);
  const scored = async (model: string): Promise<number[]> => {
    await heddle(cwd, "score", "--model", model, "--data", "row.jsonl", "--out", "row-out.jsonl");
    return JSON.parse(readFileSync(join(cwd, "row-out.jsonl"), "utf8")).logprobs.slice(1);
  };
  const [merged, beside] = [await scored("runs/again/sft"), await scored(adapter)];
  merged.forEach((x, i) => {
    expect(Math.abs(x - beside[i]!)).toBeLessThan(1e-4);
  });

  const distill = { steps: 1, batch_size: 4, learning_rate: 0, lmbda: 0, beta: 0 };
  const losses = await Promise.all(
    Object.entries({ onBase: "model", onItself: adapter }).map(async ([name, model]) => {
      const run = writeConfig(cwd, name, { model, teacher: adapter, lora: { r: 2 }, distill });
      expect(await completeRun(cwd, "distill", name)).toMatchObject({ code: 0 });
      return readLog(run)[0]!.loss as number;
    }),
  );
  expect(losses[0]).toBeGreaterThan(1e-4);
  // The same model, of which the student's layers are a loop and the teacher's are none: it rounds otherwise.
  expect(Math.abs(losses[1]!)).toBeLessThan(1e-8);
  expect(existsSync(join(first, "sft", "adapter_config.json"))).toBe(true);
});

test("load_in_4bit learns an adapter on what --load-in-4bit loads", async () => {
  const run = writeConfig(cwd, "packed", { ...config, load_in_4bit: true, lora: { r: 2 } });
  expect(await completeRun(cwd, "sft", "packed")).toMatchObject({ code: 0 });
  expect(filesIn(join(run, "sft"))).toEqual(adapterFiles.sort());
  const losses = readLog(run).map(({ loss }) => loss as number);
  expect(losses.at(-1)).toBeLessThan(losses[0]!);

  // The loss of the first step, when the adapter adds nothing, is that of the base in 4 bits.
  const still = writeConfig(cwd, "still", {
    ...config,
    load_in_4bit: true,
    lora: { r: 2 },
    sft: { ...config.sft, steps: 1, batch_size: 8 },
  });
  await completeRun(cwd, "sft", "still");
  const scored = async (...flags: string[]) => {
    const out = join(cwd, "scored.jsonl");
    await heddle(cwd, "score", "--model", "model", "--data", "train.jsonl", "--out", out, ...flags);
    const rows = readFileSync(out, "utf8").trim().split("\n");
    // Of each row the two tokens of max_new_tokens: "11" and the end of the turn are three.
    const nats = rows.flatMap((row) => (JSON.parse(row).logprobs as number[]).slice(-3, -1));
    return -nats.reduce((sum, x) => sum + x, 0) / nats.length;
  };
  const [loss] = readLog(still).map(({ loss }) => loss as number);
  expect(Math.abs(loss! - (await scored("--load-in-4bit")))).toBeLessThan(1e-4);
  expect(Math.abs(loss! - (await scored()))).toBeGreaterThan(1e-4);
});

test("an adapter without its base is an error of the config", async () => {
  mkdirSync(join(cwd, "adapter"));
  writeFileSync(
    join(cwd, "adapter", "adapter_config.json"),
    JSON.stringify({ peft_type: "LORA", r: 2, lora_alpha: 4 }),
  );
  writeFileSync(join(cwd, "adapter", "adapter_model.safetensors"), "");
  writeConfig(cwd, "lost", { ...config, model: "adapter" });
  expect(await completeRun(cwd, "sft", "lost")).toMatchObject({
    code: 2,
    stderr:
      'error: lost.yaml:1: model: adapter/adapter_config.json: names no "base_model_name_or_path": give the model folder and ' +
      "the adapter each by itself\n",
  });
});
