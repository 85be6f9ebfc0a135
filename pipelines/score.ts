/** `heddle score`: the log-probability of every token under a model. */
import { Command } from "@commander-js/extra-typings";
import { existingFile, existingFolder, integer, outputFile } from "./flags.js";

export const scoreCommand = new Command("score")
  .description("score every token of each row of a file")
  .requiredOption("--model <dir>", "model folder", existingFolder)
  .requiredOption("--data <file>", 'JSONL, one row a line: {"ids"}, {"prompt"} or {"messages"}', existingFile)
  .requiredOption("--out <file>", "JSONL to write: the row plus ids and logprobs", outputFile)
  .option("--batch-size <n>", "rows at once", integer(1), 8)
  .action(async (options) => {
    const { runInForeground } = await import("./foreground.js");
    await runInForeground("score", options, { isResumable: false });
  });
