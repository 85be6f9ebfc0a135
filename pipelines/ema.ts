/** `heddle ema`: the moving average of a run's checkpoints, by flags. */
import { Command, Option } from "@commander-js/extra-typings";
import { MERGE_DTYPES } from "../merge/options.js";
import { UserError } from "./errors.js";
import { modelFolders, number } from "./flags.js";

export const emaCommand = new Command("ema")
  .description("exponential moving average of checkpoints: (1 - mu) average + mu next, from the first to the last")
  .requiredOption("--model <dir...>", "model folder of a checkpoint; two or more, the earliest first", modelFolders)
  .requiredOption("--out <dir>", "folder to write")
  .option("--mu <number>", "share of each next checkpoint", number(0, 1), 0.5)
  .addOption(
    new Option("--dtype <dtype>", "what to store; input: as the last checkpoint")
      .choices(MERGE_DTYPES)
      .default("float32" as const),
  )
  .option("--overwrite", "replace --out if it is a model already", false)
  .action(async ({ model: models, ...options }) => {
    if (models.length < 2) throw new UserError("--model: expected two or more");
    const { emaCheckpoints } = await import("../merge/warp.js");
    await emaCheckpoints({ ...options, models });
    process.stdout.write(`wrote ${options.out}\n`);
  });
