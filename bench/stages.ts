/** What the benchmarks of whole stages share: the arithmetic fixture and a context that writes nothing. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Row, readRows } from "../distill/data.js";
import { type EncodedRow, encodePrompts } from "../distill/encode.js";
import { type EvaluationOptions, judge } from "../distill/evaluate.js";
import { mean } from "../distill/statistics.js";
import type { StageContext } from "../distill/training.js";
import type { ModelFolder } from "../model/load.js";
import type { LoadedModel } from "../model/loaded.js";

export const MAX_NEW_TOKENS = 10;

/** The command line's numbers, with what they are where none is given. */
export const numbersOf = <N extends number[]>(...standard: N): N =>
  standard.map((value, i) => Number(process.argv[2 + i] ?? value)) as N;

/** A file or folder of test/fixtures/arithmetic. */
export const arithmetic = (name: string): string =>
  fileURLToPath(new URL(`../../test/fixtures/arithmetic/${name}`, import.meta.url));

export const readArithmetic = (name: "train" | "test"): Promise<Row[]> => readRows(arithmetic(`${name}.jsonl`));

export const readPrompts = async (folder: ModelFolder, name: "train" | "test"): Promise<EncodedRow[]> =>
  encodePrompts(folder, await readArithmetic(name), { system: "error", maxNewTokens: MAX_NEW_TOKENS });

export const evaluationOptions = (seed: number): EvaluationOptions => ({
  reward: "exact_match",
  max_new_tokens: MAX_NEW_TOKENS,
  batch_size: 256,
  seed,
  breathe: async () => {},
});

/** Share of held-out prompts whose greedy completion is the answer. */
export async function accuracy(model: LoadedModel, rows: readonly EncodedRow[]): Promise<number> {
  const { judged } = await judge(model, rows, { samples: 1, temperature: 0 }, evaluationOptions(0));
  return mean(judged.map(({ reward }) => reward));
}

/** Runs a stage in a folder of its own, and gives the seconds of all of it and of each step. */
export async function timeStage(
  stage: string,
  seed: number,
  run: (context: StageContext) => Promise<void>,
): Promise<{ total_s: number; steps: number[] }> {
  const dir = await mkdtemp(join(tmpdir(), "heddle-bench-"));
  const steps: number[] = [];
  const begin = performance.now();
  let last = begin;
  try {
    await run({
      stage,
      seed,
      iteration: 1,
      dir,
      signal: new AbortController().signal,
      breathe: async () => {},
      onStart: () => {},
      onStep: () => {
        const now = performance.now();
        steps.push((now - last) / 1000);
        last = now;
      },
    });
    return { total_s: (performance.now() - begin) / 1000, steps };
  } finally {
    await rm(dir, { recursive: true });
  }
}
