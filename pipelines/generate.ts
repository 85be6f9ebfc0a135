/** `heddle generate`: completions of prompts, sampled from a model. */
import { Command } from "@commander-js/extra-typings";
import { existingFile, existingFolder, integer, number, outputFile, share } from "./flags.js";
import { rowsHelp, systemOption } from "./row-flags.js";

const help = `${rowsHelp}
The last message of an assistant is no part of the prompt.
In the output completion_ids end with a stop token, unless the completion was cut off at --max-new-tokens or at the
model's max_position_embeddings. logprobs are theirs at temperature 1, before --top-k and --top-p.`;

export const generateCommand = new Command("generate")
  .description("sample a completion for each row of a file")
  .requiredOption("--model <dir>", "model folder", existingFolder)
  .requiredOption("--data <file>", "rows to continue, JSONL", existingFile)
  .requiredOption("--out <file>", "JSONL to write: the row plus completion, completion_ids and logprobs", outputFile)
  .option("--max-new-tokens <n>", "longest completion", integer(1), 256)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 1)
  .option("--top-k <k>", "sample among the k likeliest tokens, 0 for all", integer(0), 0)
  .option("--top-p <p>", "sample among the likeliest tokens that hold this share of the probability", share, 1)
  .option("--seed <n>", "same seed, same completions", integer(0, 2 ** 31 - 1), 0)
  .option("--batch-size <n>", "rows at once", integer(1), 8)
  .addOption(systemOption)
  .addHelpText("after", help)
  .action(async (options) => {
    const { runInForeground } = await import("./foreground.js");
    const { removeLeftovers } = await import("./output-file.js");
    try {
      await runInForeground("generate", options, { isResumable: false });
    } finally {
      removeLeftovers(options.out);
    }
  });
