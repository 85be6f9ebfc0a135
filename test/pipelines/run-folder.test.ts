import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { UserError } from "../../pipelines/errors.js";
import { openRun, readLog, readState } from "../../pipelines/run-folder.js";

const newDir = () => join(mkdtempSync(join(tmpdir(), "heddle-run-")), "runs", "a");
const config = { model: "m", seed: 1, rl: { steps: 50, learning_rate: "3e-4 * min(1, step / 100)" } };

describe("openRun", () => {
  test("makes the folder with the config, and nothing of what has not happened yet", async () => {
    const dir = newDir();
    const run = await openRun(dir, config);
    expect(run.state).toEqual({ stages: {} });
    expect(readdirSync(dir)).toEqual(["config.yaml", "lock"]);
    expect(readFileSync(join(dir, "config.yaml"), "utf8")).toBe(
      "model: m\nseed: 1\nrl:\n  steps: 50\n  learning_rate: 3e-4 * min(1, step / 100)\n",
    );
    run.close();
    expect(readdirSync(dir)).toEqual(["config.yaml"]);
  });

  test("opens the run again with the same config, whatever the order of its keys", async () => {
    const dir = newDir();
    (await openRun(dir, config)).close();
    (await openRun(dir, { rl: config.rl, seed: 1, model: "m" })).close();
  });

  test("names the keys in which another config differs", async () => {
    const dir = newDir();
    (await openRun(dir, config)).close();
    const other = { model: "m", seed: 2, rl: { steps: 100, learning_rate: config.rl.learning_rate, mu: 0.01 } };
    await expect(openRun(dir, other)).rejects.toThrow(
      new UserError(
        `${dir}/config.yaml: this run was started with another config: seed is 1 there and 2 here, ` +
          `rl.steps is 50 there and 100 here, rl.mu is not set there and 0.01 here. ` +
          `Set another output_dir, or remove ${dir} to start over`,
      ),
    );
    // The refusal gave the lock back.
    (await openRun(dir, config)).close();
  });

  test("refuses a second writer", async () => {
    const dir = newDir();
    const run = await openRun(dir, config);
    await expect(openRun(dir, config)).rejects.toThrow(`process ${process.pid} is writing this run`);
    run.close();
  });

  test("refuses a folder of other files, and a file", async () => {
    const dir = newDir();
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, "thesis.tex"), "");
    await expect(openRun(dir, config)).rejects.toThrow(
      new UserError(`output_dir: ${dir} holds files that are not a run's (no config.yaml). Set another output_dir`),
    );
    await expect(openRun(join(dir, "thesis.tex"), config)).rejects.toThrow("is a file, expected a folder");
    expect(readdirSync(dir)).toEqual(["thesis.tex"]);
  });

  test("takes up a folder in which a first start was killed at once", async () => {
    const dir = newDir();
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, "config.yaml.123.tmp"), "mod");
    (await openRun(dir, config)).close();
    expect(readdirSync(dir)).toEqual(["config.yaml"]);
  });
});

describe("log.jsonl", () => {
  test("has a line a step, and drops those after the step that a stage resumes from", async () => {
    const dir = newDir();
    const run = await openRun(dir, config);
    run.log({ phase: "distill", step: 1, loss: 0.5 });
    run.log({ phase: "rl", iteration: 1, run: 1, step: 1, reward: 1 });
    run.log({ phase: "rl", iteration: 1, run: 1, step: 2, reward: Number.NaN });
    expect(readFileSync(join(dir, "log.jsonl"), "utf8")).toBe(
      '{"phase":"distill","step":1,"loss":0.5}\n' +
        '{"phase":"rl","iteration":1,"run":1,"step":1,"reward":1}\n' +
        '{"phase":"rl","iteration":1,"run":1,"step":2,"reward":null}\n',
    );
    run.truncateLog((line) => line.phase !== "rl" || line.step <= 1);
    expect(readLog(dir).map(({ phase, step }) => [phase, step])).toEqual([
      ["distill", 1],
      ["rl", 1],
    ]);
    run.close();
  });

  test("loses a last line that a kill has torn, and only that", async () => {
    const dir = newDir();
    const run = await openRun(dir, config);
    run.log({ phase: "rl", step: 1 });
    run.close();
    appendFileSync(join(dir, "log.jsonl"), '{"phase":"rl","st');
    expect(readLog(dir)).toEqual([{ phase: "rl", step: 1 }]);
    const again = await openRun(dir, config);
    again.log({ phase: "rl", step: 2 });
    expect(readLog(dir).map((line) => line.step)).toEqual([1, 2]);
    again.close();
  });

  test("names the line that is no JSON", async () => {
    const dir = newDir();
    (await openRun(dir, config)).close();
    writeFileSync(join(dir, "log.jsonl"), '{"phase":"rl","step":1}\noops\n');
    expect(() => readLog(dir)).toThrow(
      `${dir}/log.jsonl:2: not a line of JSON. Remove that line, or the run's folder to start over`,
    );
  });
});

describe("state.json", () => {
  test("remembers which stages are done, with their results", async () => {
    const dir = newDir();
    const run = await openRun(dir, config);
    run.finishStage("distill", { loss: 0.25 });
    run.finishStage("iteration-1/run-1", { reward: 1 });
    run.close();
    const stages = { distill: { loss: 0.25 }, "iteration-1/run-1": { reward: 1 } };
    expect(readState(dir)).toEqual({ stages });
    const again = await openRun(dir, config);
    expect(again.state.stages).toEqual(stages);
    again.close();
    expect(existsSync(join(dir, "lock"))).toBe(false);
  });
});
