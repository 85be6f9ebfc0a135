/**
 * The work of `heddle warp`: distil, then iterations of RL runs, SLERP and LITI (WARP, arXiv 2406.16768), then the table
 * and the report. Every stage that is done is skipped when the same command runs again.
 */
import { join } from "node:path";
import { compileSchedule } from "../../config/schedule.js";
import { checkRewarded, openReward } from "../../distill/reward-model.js";
import { type GroupStatistics, slerpCheckpoints } from "../../merge/warp.js";
import type { Dtype } from "../../model/json.js";
import { openModel } from "../../model/load.js";
import { parameterShapes } from "../../model/shapes.js";
import { learning } from "../../student/learning.js";
import { type ConfigFor, stringifyConfig } from "../config.js";
import type { TaskContext } from "../events.js";
import { writeFileAtomic } from "../files.js";
import { renderReport } from "../report.js";
import { type Candidate, measureModels, type Result } from "../results.js";
import { type Run, readLog } from "../run-folder.js";
import { inRun, readPrompts } from "../stages.js";
import { formatTable } from "../table.js";
import { runDistillation } from "./distill.js";
import { runRl } from "./rl.js";

type WarpConfig = ConfigFor<"warp">;

/** Gives the text to print. */
export function run(config: WarpConfig, context: TaskContext): Promise<string> {
  return inRun(config, async (run) => {
    await checkData(config);
    const distilled = await runDistillation(run, config, context);
    const { candidates, merges } = await runWarp(run, config, context, distilled);
    const final = join(run.dir, "final");
    const results = await measureAll(run, config, context, distilled, [...candidates, { name: "final", dir: final }]);
    const table = results.map(({ row }) => row);
    const report = await renderReport({
      title: `heddle warp: ${config.output_dir}`,
      config: stringifyConfig(config),
      log: readLog(run.dir),
      reward: config.rl.reward,
      table,
      merges,
      samples: results.at(-1)?.samples ?? [],
    });
    const path = join(run.dir, "report.html");
    writeFileAtomic(path, report);
    return `${table.length === 0 ? "" : `${formatTable(table, config.rl.reward)}\n`}model   ${final}\nreport  ${path}\n`;
  });
}

/** What a later stage would refuse is refused before the first one. */
async function checkData(config: WarpConfig): Promise<void> {
  const folder = await openModel(config.model);
  const names = Object.keys(parameterShapes(folder.config));
  for (const settings of [config.distill, config.rl]) learning(settings, names);
  const reward = await openReward(config.rl.reward, folder);
  for (const [path, maxNewTokens] of [
    [config.train_data, config.rl.max_new_tokens],
    [config.eval_data, config.eval.max_new_tokens],
  ] as const) {
    if (path === null) continue;
    await checkRewarded(reward, await readPrompts(path, folder, config, maxNewTokens), maxNewTokens);
  }
}

type Merge = { readonly name: string; readonly statistics: readonly GroupStatistics[] };

/** The iterations, and the final model. Gives what they made, in order, and the geometry of each merge. */
async function runWarp(
  run: Run,
  config: WarpConfig,
  context: TaskContext,
  distilled: string,
): Promise<{ candidates: Candidate[]; merges: Merge[] }> {
  const { iterations, runs: M, granularity, eta } = config.warp;
  const etaAt = await compileSchedule(eta);
  const candidates: Candidate[] = [];
  const merges: Merge[] = [];
  let init = distilled;
  for (let iteration = 1; iteration <= iterations; iteration++) {
    const name = `iteration-${iteration}`;
    const runs: string[] = [];
    for (let m = 1; m <= M; m++) {
      const dir = await runRl(run, config, context, { phase: "rl", iteration, run: m }, init);
      runs.push(dir);
      candidates.push({ name: `${name}/run-${m}`, dir });
    }
    const merge = (stage: string, etaOf: Parameters<typeof slerpCheckpoints>[0]["eta"], dtype: Dtype) =>
      mergeOnce(run, context, stage, { init, runs, granularity, eta: etaOf, dtype });
    const towardsInit = (layer: number, layers: number) => etaAt({ iteration, layer, layers });

    // What is handed on is float32; SLERP and LITI are one pass, so the merged model is there to be measured only.
    merges.push({ name, statistics: await merge(`${name}/merged`, 1, "float32") });
    candidates.push({ name: `${name}/merged`, dir: join(run.dir, name, "merged") });
    if (iteration === iterations) {
      const { config: start } = await openModel(config.model);
      await merge("final", towardsInit, start.dtype);
    } else {
      await merge(`${name}/liti`, towardsInit, "float32");
      init = join(run.dir, name, "liti");
      candidates.push({ name: `${name}/liti`, dir: init });
    }
  }
  return { candidates, merges };
}

/** A merge into the run's folder, unless an earlier process has finished it. */
async function mergeOnce(
  run: Run,
  context: TaskContext,
  stage: string,
  options: Omit<Parameters<typeof slerpCheckpoints>[0], "out">,
): Promise<readonly GroupStatistics[]> {
  if (!(stage in run.state.stages)) {
    await context.breathe();
    context.signal.throwIfAborted();
    const statistics = await slerpCheckpoints({ ...options, out: join(run.dir, stage), overwrite: true });
    run.finishStage(stage, statistics);
  }
  return run.state.stages[stage] as GroupStatistics[];
}

/** All models of the run on the held-out prompts; nothing without eval_data. A teacher over HTTP is not measured. */
async function measureAll(
  run: Run,
  config: WarpConfig,
  context: TaskContext,
  distilled: string,
  made: readonly Candidate[],
): Promise<Result[]> {
  const { eval_data } = config;
  if (eval_data === null) return [];
  const isRemote = /^https?:/.test(config.teacher);
  const candidates = [
    ...(isRemote ? [] : [{ name: "teacher", dir: config.teacher, dtype: config.teacher_dtype }]),
    { name: "start", dir: config.model },
    { name: "distilled", dir: distilled },
    ...made,
  ];
  return measureModels(run, { ...config, eval_data }, context, candidates, distilled);
}
