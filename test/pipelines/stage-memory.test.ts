/** A command's work, called by a script: what it had on the device is freed where it ends with an error. */
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { loadConfig } from "../../pipelines/config.js";
import { run } from "../../pipelines/tasks/sft.js";
import { expectAllFreed } from "../distill/stage.js";
import { taskContext } from "./command.js";
import { newWorkplace, writeConfig, writeRows } from "./training-run.js";

test("a stage whose data cannot be used frees the model", async () => {
  const cwd = await newWorkplace();
  const output_dir = writeConfig(cwd, "sft", {
    model: join(cwd, "model"),
    train_data: join(cwd, "rows.jsonl"),
    sft: { steps: 1 },
  });
  writeRows(join(cwd, "rows.jsonl"), [{ prompt: "5+6=" }]);
  const config = await loadConfig(join(cwd, "sft.yaml"), { set: [`output_dir=${output_dir}`], command: "sft" });
  vi.stubEnv("HEDDLE_JIT", "0");
  await expectAllFreed(() =>
    expect(run(config, taskContext())).rejects.toThrow("rows.jsonl:1: completion: expected the text to learn"),
  );
  vi.unstubAllEnvs();
});
