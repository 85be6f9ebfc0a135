/** `heddle merge`: any mergekit recipe, and heddle's own, from model folders to a model folder. */
import { Command } from "@commander-js/extra-typings";
import type { RunOptions } from "../merge/engine.js";
import { bytes, collectSet, existingFile, integer, outputFile } from "./flags.js";

export const mergeCommand = new Command("merge")
  .description(
    "merge models by a recipe (mergekit's YAML); no TensorFlow is loaded, memory does not grow with the models",
  )
  .argument("<recipe>", "YAML file; paths in it are relative to the working directory", existingFile)
  .argument("<out>", "folder to write")
  .option("--dry-run", "check everything, print what would be read and written, and stop", false)
  .option("--resume", "go on with a merge that was killed or interrupted", false)
  .option("--overwrite", "replace <out> if it is a model already", false)
  .option("--out-shard-size <size>", "most bytes of weights in a file, such as 5GB", bytes, 5e9)
  .option("--seed <number>", "what dare and della draw their random numbers from", integer(0), 0)
  .option("--workers <number>", "threads (default: one a core)", integer(0, 64))
  .option("--diagnostics <file>", "write the geometry of the task vectors, layer by layer, as JSON", outputFile)
  .option("--report <file>", "write the same as a page (HTML)", outputFile)
  .option("--set <key=value>", "use this value instead of the recipe's, e.g. --set parameters.eta=0.5", collectSet)
  .addHelpText("after", "\nInterrupted, it exits with 75: the same command with --resume goes on.")
  .action(async (recipe, out, { dryRun, diagnostics, report, outShardSize: shardSize, ...options }) => {
    if (dryRun) {
      const { describeMerge } = await import("./merge-dry-run.js");
      process.stdout.write(await describeMerge({ recipe, shardSize, ...options }));
      return;
    }
    const { mergeRecipe } = await import("../merge/merge-recipe.js");
    const isMeasured = diagnostics !== undefined || report !== undefined;
    const statistics = await inForeground((run) =>
      mergeRecipe({ recipe, out, shardSize, isMeasured, ...options, ...run }),
    );
    if (isMeasured) {
      const { writeDiagnostics } = await import("./merge-diagnostics.js");
      await writeDiagnostics(statistics, { recipe, out, diagnostics, report });
    }
    process.stdout.write(`wrote ${out}\n`);
  });

const GO_ON = "run the same command with --resume to go on";

/** Runs a merge with a bar of megabytes; Ctrl-C stops it between two parts. */
async function inForeground<Result>(
  merge: (run: Pick<RunOptions, "onProgress" | "signal">) => Promise<Result>,
): Promise<Result> {
  const [{ startProgress }, { InterruptedError }] = await Promise.all([import("./progress.js"), import("./errors.js")]);
  const progress = startProgress();
  const stop = new AbortController();
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  const onSignal = (signal: NodeJS.Signals) => stop.abort(new InterruptedError(signal, true, GO_ON));
  for (const signal of signals) process.on(signal, onSignal);
  const stage = "merge";
  const beganMs = performance.now();
  let first: number | undefined;
  const onProgress = (stored: number, total: number) => {
    const [unit, size] = total < 1e7 ? ["kB", 1e3] : ["MB", 1e6];
    const [done, steps] = [Math.floor(stored / size), Math.ceil(total / size)];
    if (first === undefined) {
      first = stored;
      progress.onEvent({ type: "stage", stage, steps, done, unit });
    } else if (stored < total) {
      const metrics = { bytes_per_second: (1000 * (stored - first)) / (performance.now() - beganMs) };
      progress.onEvent({ type: "step", stage, step: done, metrics });
    } else {
      progress.onEvent({ type: "stage", stage, steps, done: steps, unit });
    }
  };
  try {
    return await merge({ signal: stop.signal, onProgress });
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
    progress.stop();
  }
}
