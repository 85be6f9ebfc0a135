/** `heddle score`: the log-probability of every token under a model. */
import { outputFile } from "./flags.js";
import { rowCommand, runToFile } from "./row-command.js";

const help = `\
The row's "completion", or the assistant's last message, is scored after the prompt, with the token that ends it.
In the output logprobs[0] is null, and logprobs[i] is ln p(ids[i] | the ids before it).`;

export const scoreCommand = rowCommand("score", { rows: "rows to score", help })
  .description("score every token of each row of a file")
  .requiredOption("--out <file>", "JSONL to write: the row plus ids and logprobs", outputFile)
  .action((options) => runToFile("score", options));
