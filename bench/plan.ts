/** What `heddle doctor --plan` says of a stage beside what it takes: plan.js CONFIG sft|distill|rl; the run's folder is thrown away. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { device } from "tfjs-jit";
import { loadConfig } from "../pipelines/config.js";
import type { TaskModule } from "../pipelines/events.js";
import { planConfig } from "../pipelines/plan.js";
import { peakRssMb, print } from "./time.js";

const [path, stage] = process.argv.slice(2) as [string, "sft" | "distill" | "rl"];
const dir = await mkdtemp(join(tmpdir(), "heddle-bench-plan-"));
const set = [`output_dir=${dir}/run`];
const plan = (await planConfig(path, set, device)).find((planned) => planned.stage === stage)!;
const config = await loadConfig(path, { set, command: stage });
const { run } = (await import(`../pipelines/tasks/${stage}.js`)) as TaskModule;
const context = { emit: () => {}, signal: new AbortController().signal, breathe: async () => {} };
await run(config, context);
await rm(dir, { recursive: true });
const plannedMb = Math.round(plan.total / 2 ** 20);
print({
  name: `plan ${path} ${stage}`,
  planned_mb: plannedMb,
  peak_rss_mb: peakRssMb(),
  ratio: plannedMb / peakRssMb(),
});
