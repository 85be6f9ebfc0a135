/** `heddle sft`, `distill` and `rl` as a user runs them: what a run leaves, and what becomes of one that is killed. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { readLog, readState } from "../../pipelines/run-folder.js";
import {
  changes,
  completeRun,
  differingFiles,
  type Ending,
  filesIn,
  killPrograms,
  modelFiles,
  newWorkplace,
  readModel,
  startRun,
  stepsOf,
  teacher,
  writeConfig,
} from "./training-run.js";

let cwd: string;
let model: string;
beforeAll(async () => {
  cwd = await newWorkplace();
  model = join(cwd, "model");
});
afterEach(killPrograms);

/** Files of a run of one stage. */
const filesOf = (stage: string) =>
  new Set([
    "config.yaml",
    "log.jsonl",
    "state.json",
    ...[...modelFiles, "README.md"].map((name) => `${stage}/${name}`),
  ]);

/** What a stage made of `model`: the same kind of folder in float32, every tensor moved, by at most `most`. */
async function expectTrained(dir: string, most: number): Promise<void> {
  const { weights: before, ...start } = await readModel(model);
  const { weights: after, ...result } = await readModel(dir);
  const files = [...start.files, "README.md"].sort();
  expect(result).toEqual({ ...start, files, dtypes: ["F32"], config: { ...start.config, dtype: "float32" } });
  expect(new Set(Object.keys(after))).toEqual(new Set(Object.keys(before)));
  for (const [name, change] of Object.entries(changes(before, after))) {
    expect(change, name).toBeGreaterThan(0);
    expect(change, name).toBeLessThan(most);
  }
}

describe("heddle sft", () => {
  const learningRate = 1e-3;
  let dir: string;
  let ending: Ending;
  beforeAll(async () => {
    dir = writeConfig(cwd, "sft", {
      max_new_tokens: 3,
      sft: { steps: 2, batch_size: 8, learning_rate: `${learningRate} * step` },
    });
    ending = await completeRun(cwd, "sft", "sft");
  });

  test("ends with 0 and says where the model is", () => {
    expect(ending).toMatchObject({ code: 0, stdout: `${dir}/sft: the model is ready\n` });
    expect(ending.stderr).toMatch(/^sft: 2 steps\nsft: 2 steps done in \d+s, loss [\d.]+, [\d,]+ tokens\/s\n$/);
  });

  test("leaves the model, the log, the state, and the config as resolved", async () => {
    expect(new Set(filesIn(dir))).toEqual(filesOf("sft"));
    expect(readState(dir)).toEqual({ stages: { sft: { steps: 2 } } });
    expect(parse(readFileSync(join(dir, "config.yaml"), "utf8"))).toEqual({
      model: "model",
      teacher: null,
      train_data: "train.jsonl",
      eval_data: null,
      output_dir: "runs/sft",
      seed: 0,
      system: "error",
      allow_control_tokens: false,
      max_new_tokens: 3,
      trainable: null,
      lora: null,
      load_in_4bit: false,
      load_in_8bit: false,
      compute_dtype: "float32",
      teacher_dtype: "float32",
      gradient_checkpointing: false,
      sft: {
        steps: 2,
        batch_size: 8,
        learning_rate: "0.001 * step",
        weight_decay: 0,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        max_grad_norm: 1,
        save_every: 100,
        gradient_accumulation_steps: 1,
        max_new_tokens: 3,
        trainable: null,
        lora: null,
        gradient_checkpointing: false,
      },
      eval: { samples: 1, batch_size: 32, limit: null, max_new_tokens: 3 },
    });
    // A step of Adam changes no weight by more than about its learning rate; here they are 0.001 and 0.002.
    await expectTrained(join(dir, "sft"), 4 * learningRate);
  });

  test("logs each step", () => {
    const line = {
      phase: "sft",
      loss: expect.any(Number),
      grad_norm: expect.any(Number),
      completion_length: 3,
      tokens_per_second: expect.any(Number),
    };
    expect(readLog(dir)).toEqual([
      { ...line, step: 1, learning_rate: 1e-3 },
      { ...line, step: 2, learning_rate: 2e-3 },
    ]);
  });

  test("run again, it is done before; what a process left that was killed while it cleared up is cleared up", async () => {
    const contents = () => filesIn(dir).map((name) => [name, readFileSync(join(dir, name), "base64")]);
    const before = contents();
    mkdirSync(join(dir, "sft", "checkpoint-1"));
    writeFileSync(join(dir, "sft", "checkpoint-1", "state.json"), "{}");
    const again = await completeRun(cwd, "sft", "sft");
    expect(again).toMatchObject({ code: 0, stdout: ending.stdout, stderr: "sft: done before\n" });
    expect(contents()).toEqual(before);
  });
});

describe.each([
  { command: "distill", jit: false, steps: 6, killAt: 3, keys: [] },
  { command: "rl", jit: true, steps: 24, killAt: 7, keys: ["reward", "kl"] },
])("heddle $command", ({ command, jit, steps, killAt, keys }) => {
  const config = {
    teacher,
    distill: { steps, batch_size: 4, beta: 0.5, learning_rate: 1e-4, save_every: 2 },
    rl: { steps, prompts: 4, samples: 2, learning_rate: 1e-4, save_every: 2 },
  };
  let dir: string;
  let ending: Ending;
  beforeAll(async () => {
    dir = writeConfig(cwd, command, config);
    ending = await completeRun(cwd, command, command, { jit });
  });

  test("ends with 0 and leaves the model, the config, the log and the state", async () => {
    expect(ending).toMatchObject({ code: 0, stdout: `${dir}/${command}: the model is ready\n` });
    expect(new Set(filesIn(dir))).toEqual(filesOf(command));
    expect(readState(dir)).toEqual({ stages: { [command]: { steps } } });
    await expectTrained(join(dir, command), 2 * steps * 1e-4);
  });

  test("logs each step", () => {
    const metrics = ["loss", ...keys, "learning_rate", "grad_norm", "completion_length", "tokens_per_second"];
    const log = readLog(dir);
    expect(log.map(({ phase, step }) => [phase, step])).toEqual(
      Array.from({ length: steps }, (_, i) => [command, i + 1]),
    );
    for (const { phase, step, ...values } of log) {
      expect(Object.keys(values)).toEqual(metrics);
      for (const [key, value] of Object.entries(values))
        expect(value, `${key} at step ${step}`).toEqual(expect.any(Number));
      expect(values.completion_length).toBeGreaterThanOrEqual(1);
      expect(values.completion_length).toBeLessThanOrEqual(2);
    }
  });

  test("killed in the middle and started again, it ends with the same bits", async () => {
    const killed = writeConfig(cwd, `${command}-killed`, config);
    const program = startRun(cwd, command, `${command}-killed`, { jit });
    await program.logged(killed, killAt);
    expect(await program.end("SIGKILL")).toMatchObject({ code: null, stdout: "" });
    expect(readState(killed)).toEqual({ stages: {} });
    expect(filesIn(killed).filter((name) => name.endsWith("model.safetensors"))).toEqual([]);

    const { code, stderr } = await completeRun(cwd, command, `${command}-killed`, { jit });
    expect(code).toBe(0);
    expect(Number(/goes on after step (\d+) of/.exec(stderr)?.[1])).toBeGreaterThanOrEqual(killAt - 1);
    expect(stepsOf(killed)).toEqual(stepsOf(dir));
    // The config and the model card name the folder, log.jsonl the speed.
    const named = [`${command}/README.md`, "config.yaml", "log.jsonl"];
    expect(new Set(differingFiles(killed, dir))).toEqual(new Set(named));
  });
});
