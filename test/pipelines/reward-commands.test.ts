/** `heddle rl` and `heddle warp` with a reward model, as a user runs them, on rows without answers. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readsBfloat16On } from "tfjs-jit/setup";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { readLog, readState } from "../../pipelines/run-folder.js";
import { writeRewardModel } from "../distill/reward-folder.js";
import { heddle } from "./command.js";
import {
  completeRun,
  differingFiles,
  filesIn,
  killPrograms,
  newWorkplace,
  startRun,
  stepsOf,
  teacher,
  writeConfig,
  writeRows,
} from "./training-run.js";

let cwd: string;
beforeAll(async () => {
  cwd = await newWorkplace();
  await writeRewardModel(join(cwd, "model"), join(cwd, "judge"), { factor: 0.1 });
  await writeRewardModel(join(cwd, "model"), join(cwd, "labels"), { labels: 2 });
  writeRows(
    join(cwd, "train.jsonl"),
    [2, 3, 4, 5, 6, 7].map((a) => ({ prompt: `${a}+1=` })),
  );
  writeRows(join(cwd, "held-out.jsonl"), [{ prompt: "10+1=" }, { messages: [{ role: "user", content: "1+1=" }] }]);
});
afterEach(killPrograms);

const reward = { model: "judge" };
const rl = { steps: 4, prompts: 2, samples: 2, learning_rate: 1e-4, save_every: 1, reward };
const warp = {
  teacher,
  eval_data: "held-out.jsonl",
  distill: { steps: 1, batch_size: 2 },
  rl: { ...rl, steps: 2 },
  warp: {},
  eval: { samples: 2, batch_size: 4 },
};

describe("heddle rl", () => {
  test("rewards what the model gives; killed and started again, it ends with the same bits", async () => {
    const dir = writeConfig(cwd, "rl", { rl });
    expect(await completeRun(cwd, "rl", "rl", { jit: true })).toMatchObject({
      code: 0,
      stdout: `${dir}/rl: the model is ready\n`,
    });
    const log = readLog(dir);
    expect(log.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
    expect(new Set(log.map(({ reward: mean }) => mean)).size).toBeGreaterThan(1);
    expect(readFileSync(join(dir, "rl", "README.md"), "utf8")).toContain("## Models\n\n- `model`\n- `judge`\n");

    const killed = writeConfig(cwd, "killed", { rl });
    const program = startRun(cwd, "rl", "killed", { jit: true });
    await program.logged(killed, 2);
    await program.end("SIGKILL");
    expect(await completeRun(cwd, "rl", "killed", { jit: true })).toMatchObject({ code: 0 });
    expect(stepsOf(killed)).toEqual(stepsOf(dir));
    expect(differingFiles(join(killed, "rl"), join(dir, "rl"))).toEqual(["README.md"]);
  });

  test("refuses a model of two labels, and a language model, before the first step", async () => {
    const expected =
      "expected a reward model: one for sequence classification (such as Gemma2ForSequenceClassification)";
    const complaint = async (command: string, model: string) => {
      const dir = writeConfig(cwd, `refused-${command}-${model}`, { ...warp, rl: { ...rl, reward: { model } } });
      const { code, stderr } = await completeRun(cwd, command, `refused-${command}-${model}`);
      expect([code, filesIn(dir)]).toEqual([2, ["config.yaml"]]);
      return stderr;
    };
    for (const command of ["rl", "warp"]) {
      expect(await complaint(command, "labels")).toBe(
        `error: labels/config.json: describes a classifier of 2 labels, ${expected} with one label, "num_labels": 1\n`,
      );
    }
    expect(await complaint("warp", "model")).toBe(
      `error: model/config.json: describes a language model, ${expected} with one label\n`,
    );
  });

  test("exact_match still needs answers", async () => {
    writeConfig(cwd, "exact", { rl: { steps: 1 } });
    expect(await completeRun(cwd, "rl", "exact")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("error: train.jsonl:1: answer: expected the text to match, got none\n"),
    });
  });
});

test("heddle warp measures rewards, and says so in the table and the report", async () => {
  const dir = writeConfig(cwd, "warp", warp);
  const { code, stdout } = await completeRun(cwd, "warp", "warp");
  const [head, ...lines] = stdout.split("\n");
  expect([code, head]).toEqual([0, expect.stringMatching(/^model +greedy reward +reward +KL to distilled$/)]);
  const names = [
    "teacher",
    "start",
    "distilled",
    "iteration-1/run-1",
    "iteration-1/run-2",
    "iteration-1/merged",
    "final",
  ];
  expect(lines.slice(0, names.length)).toEqual(
    names.map((name) =>
      expect.stringMatching(new RegExp(`^${name} +-?\\d+\\.\\d{3} +-?\\d+\\.\\d{3} ± \\d+\\.\\d{3} `)),
    ),
  );
  const html = readFileSync(join(dir, "report.html"), "utf8");
  expect(html).toContain("Rewards: scores of the reward model judge. Greedy reward: mean over greedy completions.");
  expect(html).not.toMatch(/accuracy/i);

  // The samples' rewards are what `heddle score` says of prompt and completion.
  const { samples } = readState(dir).stages["eval/final"] as {
    samples: { prompt: string; completion: string; answer: null; reward: number }[];
  };
  writeRows(
    join(cwd, "samples.jsonl"),
    samples.map(({ prompt, completion }) => ({ prompt, completion })),
  );
  const scored = await heddle(cwd, "score", "--model", "judge", "--data", "samples.jsonl", "--out", "-");
  const scores = scored.stdout
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { scores: number[] }).scores[0]!);
  expect(samples.map(({ answer }) => answer)).toEqual([null, null]);
  samples.forEach(({ reward: own }, i) => {
    expect(Math.abs(own - scores[i]!)).toBeLessThan(1e-5);
  });
});

test("heddle doctor --plan counts the reward model", async () => {
  const bytes = async (...set: string[]) => {
    const { stdout } = await heddle(
      cwd,
      "doctor",
      "--json",
      "--plan",
      "rl.yaml",
      ...set.flatMap((one) => ["--set", one]),
    );
    return (JSON.parse(stdout) as { plans: { bytes: { weights: number; reward: number } }[] }).plans[0]!.bytes;
  };
  writeConfig(cwd, "rl", { rl });
  const { weights, reward: whole } = await bytes();
  // The policy's shapes, stored in bfloat16, which stays that where products read it, and a head of one label in float32.
  const { hidden_size } = JSON.parse(readFileSync(join(cwd, "model", "config.json"), "utf8")) as {
    hidden_size: number;
  };
  expect(whole).toBe((readsBfloat16On("cpu") ? weights / 2 : weights) + 4 * hidden_size);
  expect((await bytes("rl.reward.dtype=bfloat16")).reward).toBe((weights + 4 * hidden_size) / 2);
});
