/** `heddle score`: the log-probability of every token under a model. */
import { Command } from "@commander-js/extra-typings";
import { existingFile, existingFolder, integer, outputFile } from "./flags.js";
import { rowsHelp, systemOption } from "./row-flags.js";

const help = `${rowsHelp}
The row's "completion", or the assistant's last message, is scored after the prompt, with the token that ends it.
In the output logprobs[0] is null, and logprobs[i] is ln p(ids[i] | the ids before it).`;

export const scoreCommand = new Command("score")
  .description("score every token of each row of a file")
  .requiredOption("--model <dir>", "model folder", existingFolder)
  .requiredOption("--data <file>", "rows to score, JSONL", existingFile)
  .requiredOption("--out <file>", "JSONL to write: the row plus ids and logprobs", outputFile)
  .option("--batch-size <n>", "rows at once", integer(1), 8)
  .addOption(systemOption)
  .addHelpText("after", help)
  .action(async (options) => {
    const { runInForeground } = await import("./foreground.js");
    const { removeLeftovers } = await import("./output-file.js");
    try {
      await runInForeground("score", options, { isResumable: false });
    } finally {
      removeLeftovers(options.out);
    }
  });
