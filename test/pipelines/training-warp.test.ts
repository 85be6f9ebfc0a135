/** `heddle warp` as a user runs it: once left alone, and once stopped by Ctrl-C in every kind of stage. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { readLog, readState } from "../../pipelines/run-folder.js";
import {
  completeRun,
  differingFiles,
  type Ending,
  filesIn,
  killPrograms,
  modelFiles,
  newWorkplace,
  type Program,
  readModel,
  startRun,
  stepsOf,
  teacher,
  writeConfig,
} from "./training-run.js";

const config = {
  teacher,
  eval_data: "held-out.jsonl",
  distill: { steps: 3, batch_size: 4, learning_rate: 1e-4 },
  rl: { steps: 3, prompts: 2, samples: 2, learning_rate: "1e-4 / iteration" },
  warp: { iterations: 2, runs: 2, eta: 0.25 },
  eval: { samples: 2, batch_size: 8 },
};
const models = [
  "distill",
  "iteration-1/run-1",
  "iteration-1/run-2",
  "iteration-1/merged",
  "iteration-1/liti",
  "iteration-2/run-1",
  "iteration-2/run-2",
  "iteration-2/merged",
  "final",
];
const measured = ["teacher", "start", "distilled", ...models.slice(1)];
const cards = models.map((stage) => `${stage}/README.md`);

/** A run of nine models, on a machine that does other things as well. */
const BUSY_MS = 600_000;

let cwd: string;
let dir: string;
let ending: Ending;
beforeAll(async () => {
  cwd = await newWorkplace();
  dir = writeConfig(cwd, "warp", config);
  ending = await completeRun(cwd, "warp", "warp");
}, BUSY_MS);
afterEach(killPrograms);

describe("a run", () => {
  test("ends with 0, a table of its models, and where the last one and the report are", () => {
    expect(ending.code).toBe(0);
    const [head, ...lines] = ending.stdout.split("\n");
    expect(head).toMatch(/^model +accuracy +reward +KL to distilled$/);
    const row = (name: string) =>
      expect.stringMatching(
        new RegExp(
          `^${name} +[\\d.]+ % +\\d\\.\\d{3} ± \\d\\.\\d{3} +${name === "distilled" ? "-" : "\\d+\\.\\d\\d"}$`,
        ),
      );
    expect(lines).toEqual([...measured.map(row), "", `model   ${dir}/final`, `report  ${dir}/report.html`, ""]);
  });

  test("leaves a model folder a stage, the config, the log, the state and the report", () => {
    const files = models.flatMap((stage) => modelFiles.map((name) => `${stage}/${name}`));
    expect(new Set(filesIn(dir))).toEqual(
      new Set([...files, ...cards, "config.yaml", "log.jsonl", "report.html", "state.json"]),
    );
    expect(Object.keys(readState(dir).stages)).toEqual([...models, ...measured.map((name) => `eval/${name}`)]);
  });

  test("logs each step of each stage", () => {
    const stage = (name: object, learningRate: number, keys: string[]) =>
      [1, 2, 3].map((step) => ({
        ...name,
        step,
        ...Object.fromEntries(
          ["loss", ...keys, "grad_norm", "completion_length", "tokens_per_second"].map((key) => [
            key,
            expect.any(Number),
          ]),
        ),
        learning_rate: learningRate,
      }));
    const runs = [1, 2].flatMap((iteration) =>
      [1, 2].flatMap((run) => stage({ phase: "rl", iteration, run }, 1e-4 / iteration, ["reward", "kl"])),
    );
    expect(readLog(dir)).toEqual([...stage({ phase: "distill" }, 1e-4, []), ...runs]);
  });

  test("no two stages are the same model", async () => {
    const weights = models.map((stage) => readFileSync(join(dir, stage, "model.safetensors")).toString("base64"));
    expect(new Set(weights).size).toBe(models.length);
  });

  test("hands on float32: init + eta (merged - init), and rounds the last one to the dtype that it began with", async () => {
    const start = await readModel(join(cwd, "model"));
    const [distilled, merged1, liti, merged2, final] = await Promise.all(
      ["distill", "iteration-1/merged", "iteration-1/liti", "iteration-2/merged", "final"].map((stage) =>
        readModel(join(dir, stage)),
      ),
    );
    expect(liti).toMatchObject({ dtypes: ["F32"], config: { ...start.config, dtype: "float32" }, texts: start.texts });
    expect(final).toMatchObject({ dtypes: ["BF16"], config: start.config, texts: start.texts });
    const largestError = (init: typeof start, merged: typeof start, result: typeof start, relative: number) => {
      let largest = 0;
      for (const [name, { values }] of Object.entries(init.weights)) {
        for (const [i, value] of values.entries()) {
          const expected = value + 0.25 * (merged.weights[name]!.values[i]! - value);
          const error = Math.abs(result.weights[name]!.values[i]! - expected);
          largest = Math.max(largest, error - relative * Math.abs(expected));
        }
      }
      return largest;
    };
    expect(largestError(distilled!, merged1!, liti!, 0)).toBeLessThan(1e-6);
    // bf16 has 8 significant bits: half of the last one is 2^-8 at most.
    expect(largestError(liti!, merged2!, final!, 2 ** -8)).toBeLessThan(1e-6);
  });

  test("the report holds the table, the merges and samples", () => {
    const html = readFileSync(join(dir, "report.html"), "utf8");
    expect(html).toContain("<h1>heddle warp: runs/warp</h1>");
    for (const heading of ["Results", "Distillation", "Reinforcement learning", "iteration-1", "iteration-2"]) {
      expect(html).toMatch(new RegExp(`<h[23]>${heading}</h[23]>`));
    }
    for (const name of measured) expect(html).toContain(`<td>${name}</td>`);
    expect(html).toContain("10+1=");
  });
});

// A step that does not end within 5 s of Ctrl-C is killed, and has no checkpoint: then all of it once more.
const busy = { timeout: BUSY_MS, retry: 2 };

test("stopped by Ctrl-C in every kind of stage, it goes on each time and ends with the same bits", busy, async () => {
  const stopped = writeConfig(cwd, "stopped", config);
  rmSync(stopped, { recursive: true, force: true });
  /** Starts the run, waits, presses Ctrl-C; gives the stages that are done. */
  async function stop(when: (program: Program) => Promise<void>): Promise<string[]> {
    const program = startRun(cwd, "warp", "stopped");
    await when(program);
    const { code, seconds, stdout, stderr } = await program.end("SIGINT");
    expect([code, stdout]).toEqual([75, ""]);
    expect(stderr).toMatch(
      /stopping after this step \(Ctrl-C again to stop at once\)\n(.*\n)*interrupted by SIGINT; run the same command again to go on\n$/,
    );
    expect(seconds).toBeLessThan(5);
    return Object.keys(readState(stopped).stages);
  }
  /** Files that are of no model which is done. */
  const unfinished = (done: string[]) =>
    filesIn(stopped).filter((name) => !done.some((stage) => name.startsWith(`${stage}/`)));
  const runFiles = ["config.yaml", "log.jsonl", "state.json"];
  const checkpoint = (stage: string) => {
    const { step } = readLog(stopped).at(-1)!;
    const files = ["extra.safetensors", "m.safetensors", "parameters.safetensors", "state.json", "v.safetensors"];
    return files.map((name) => `${stage}/checkpoint-${step}/${name}`);
  };

  const inDistill = await stop((program) => program.logged(stopped, 1));
  expect(inDistill).toEqual([]);
  expect(unfinished(inDistill)).toEqual(["config.yaml", ...checkpoint("distill"), "log.jsonl"]);

  const inRl = await stop((program) => program.logged(stopped, 7));
  expect(inRl).toEqual(models.slice(0, 2));
  expect(unfinished(inRl)).toEqual(["config.yaml", ...checkpoint("iteration-1/run-2"), "log.jsonl", "state.json"]);

  const inMerge = await stop((program) => program.said(/iteration-1\/run-2: \d steps? done/));
  expect(models.slice(0, 5)).toEqual(expect.arrayContaining(inMerge));
  expect(inMerge).toContain("iteration-1/run-2");
  expect(unfinished(inMerge)).toEqual(runFiles);

  const inEvaluation = await stop((program) => program.said(/eval distilled: 2 steps/));
  expect(inEvaluation).toContain("eval/start");
  expect(inEvaluation).not.toContain("eval/final");
  expect(unfinished(inEvaluation)).toEqual(runFiles);

  const last = await completeRun(cwd, "warp", "stopped");
  expect(last).toMatchObject({ code: 0, stdout: ending.stdout.replaceAll(dir, stopped) });
  expect(stepsOf(stopped)).toEqual(stepsOf(dir));
  // The config, the model cards and the report name the folder, the log has the speed.
  expect(differingFiles(stopped, dir)).toEqual(["config.yaml", "log.jsonl", "report.html", ...cards].sort());
});
