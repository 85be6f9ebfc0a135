/** `heddle liti`: linear interpolation towards the initialisation, by flags. */
import { Command, Option } from "@commander-js/extra-typings";
import { MERGE_DTYPES } from "../merge/options.js";
import { modelFolder, number } from "./flags.js";

export const litiCommand = new Command("liti")
  .description("pull a model towards the init it was trained from: init + eta (model - init) (stage 3 of WARP)")
  .requiredOption("--init <dir>", "model folder that training started from", modelFolder)
  .requiredOption("--model <dir>", "trained or merged model folder", modelFolder)
  .requiredOption("--out <dir>", "folder to write")
  .option("--eta <number>", "0 is the init, 1 the model", number(0, 1), 0.3)
  .addOption(
    new Option("--dtype <dtype>", "what to store; input: as the init")
      .choices(MERGE_DTYPES)
      .default("float32" as const),
  )
  .option("--overwrite", "replace --out if it is a model already", false)
  .action(async (options) => {
    const { litiCheckpoints } = await import("../merge/warp.js");
    await litiCheckpoints(options);
    process.stdout.write(`wrote ${options.out}\n`);
  });
