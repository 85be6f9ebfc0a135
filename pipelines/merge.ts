/** `heddle merge`: any mergekit recipe, and heddle's own, from model folders to a model folder. */
import { Command } from "@commander-js/extra-typings";
import { withByteProgress } from "./byte-progress.js";
import { bytes, collectSet, existingFile, integer, outputFile } from "./flags.js";

const GO_ON = "run the same command with --resume to go on";

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
    const { fetchModel } = await import("./hub-models.js");
    if (dryRun) {
      const { describeMerge } = await import("./merge-dry-run.js");
      process.stdout.write(await describeMerge({ recipe, shardSize, findModel: fetchModel, ...options }));
      return;
    }
    const { mergeRecipe } = await import("../merge/merge-recipe.js");
    const isMeasured = diagnostics !== undefined || report !== undefined;
    const statistics = await withByteProgress("merge", GO_ON, (run) =>
      mergeRecipe({ recipe, out, shardSize, isMeasured, findModel: fetchModel, ...options, ...run }),
    );
    if (isMeasured) {
      const { writeDiagnostics } = await import("./merge-diagnostics.js");
      await writeDiagnostics(statistics, { recipe, out, diagnostics, report });
    }
    process.stdout.write(`wrote ${out}\n`);
  });
