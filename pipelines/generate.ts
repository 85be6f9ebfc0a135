/** `heddle generate`: completions of prompts, sampled from a model. */
import { integer, number, outputFile, share } from "./flags.js";
import { rowCommand, runToFile } from "./row-command.js";

const help = `\
The last message of an assistant is no part of the prompt.
In the output completion_ids end with a stop token, unless the completion was cut off at --max-new-tokens or at the
model's max_position_embeddings. logprobs are theirs at temperature 1, before --top-k and --top-p.`;

export const generateCommand = rowCommand("generate", { rows: "rows to continue", help })
  .description("sample a completion for each row of a file")
  .requiredOption("--out <file>", "JSONL to write: the row plus completion, completion_ids and logprobs", outputFile)
  .option("--max-new-tokens <n>", "longest completion", integer(1), 256)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 1)
  .option("--top-k <k>", "sample among the k likeliest tokens, 0 for all", integer(0), 0)
  .option("--top-p <p>", "sample among the likeliest tokens that hold this share of the probability", share, 1)
  .option("--seed <n>", "same seed, same completions", integer(0, 2 ** 31 - 1), 0)
  .action((options) => runToFile("generate", options));
