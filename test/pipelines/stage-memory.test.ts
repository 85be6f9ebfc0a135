/** A command's work, called by a script: what it had on the device is freed where it ends with an error. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { loadConfig } from "../../pipelines/config.js";
import { run as runRl } from "../../pipelines/tasks/rl.js";
import { run } from "../../pipelines/tasks/sft.js";
import { writeRewardModel } from "../distill/reward-folder.js";
import { expectAllFreed } from "../distill/stage.js";
import { setKeys } from "../model/folder.js";
import { taskContext } from "./command.js";
import { newWorkplace, writeConfig, writeRows } from "./training-run.js";

beforeAll(() => vi.stubEnv("HEDDLE_JIT", "0"));
afterAll(() => vi.unstubAllEnvs());

test("a stage whose data cannot be used frees the model", async () => {
  const cwd = await newWorkplace();
  const output_dir = writeConfig(cwd, "sft", {
    model: join(cwd, "model"),
    train_data: join(cwd, "rows.jsonl"),
    sft: { steps: 1 },
  });
  writeRows(join(cwd, "rows.jsonl"), [{ prompt: "5+6=" }]);
  const config = await loadConfig(join(cwd, "sft.yaml"), { set: [`output_dir=${output_dir}`], command: "sft" });
  await expectAllFreed(() =>
    expect(run(config, taskContext())).rejects.toThrow("rows.jsonl:1: completion: expected the text to learn"),
  );
});

test("a stage whose adapter has no place in the model frees that", async () => {
  const cwd = await newWorkplace();
  const output_dir = writeConfig(cwd, "sft", {
    model: join(cwd, "model"),
    train_data: join(cwd, "train.jsonl"),
    sft: { steps: 1 },
    lora: { target_modules: ["proj"] },
  });
  const config = await loadConfig(join(cwd, "sft.yaml"), { set: [`output_dir=${output_dir}`], command: "sft" });
  await expectAllFreed(() =>
    expect(run(config, taskContext())).rejects.toThrow('lora.target_modules: no module\'s name ends with "proj"'),
  );
});

test("RL frees its reward model, too, where a prompt is too long for that", async () => {
  const cwd = await newWorkplace();
  const judge = join(cwd, "judge");
  await writeRewardModel(join(cwd, "model"), judge);
  await setKeys(join(judge, "config.json"), { max_position_embeddings: 20 });
  const output_dir = writeConfig(cwd, "rl", {
    model: join(cwd, "model"),
    train_data: join(cwd, "train.jsonl"),
    rl: { steps: 1, reward: { model: judge } },
  });
  const config = await loadConfig(join(cwd, "rl.yaml"), { set: [`output_dir=${output_dir}`], command: "rl" });
  await expectAllFreed(() =>
    expect(runRl(config, taskContext())).rejects.toThrow(
      /train.jsonl:1: the prompt with an empty answer has \d+ tokens/,
    ),
  );
});
