/** An adapter from the command line: trained, resumed, used, and refused where a model is needed. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { heddle } from "./command.js";
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

  // The base is named as the config names it: relative to the folder where that is used.
  writeRows(join(cwd, "ids.jsonl"), [{ ids: [2, 10, 11, 12] }]);
  const scored = async (out: string, ...model: string[]) => {
    const ended = await heddle(cwd, "score", ...model, "--data", "ids.jsonl", "--out", out);
    expect(ended.stderr).not.toMatch(/Error/);
    return readFileSync(join(cwd, out), "utf8");
  };
  const both = await scored("both.jsonl", "--model", "model", "--adapter", "runs/whole/sft");
  expect(await scored("alone.jsonl", "--model", "runs/whole/sft")).toBe(both);
  expect(await scored("base.jsonl", "--model", "model")).not.toBe(both);
});

test("a config's model must be merged first", async () => {
  mkdirSync(join(cwd, "adapter"));
  writeFileSync(join(cwd, "adapter", "adapter_config.json"), "{}");
  writeConfig(cwd, "again", { ...config, model: "adapter" });
  expect(await completeRun(cwd, "sft", "again")).toMatchObject({
    code: 2,
    stderr:
      'error: again.yaml:1: model: expected a folder with config.json, got "adapter", which is an adapter: ' +
      "merge it with its base first (heddle merge)\n",
  });
});
