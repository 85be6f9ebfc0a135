/** `heddle generate`: completions of prompts, sampled from a model. */
import { collectTexts, integer, number, outputFile, share } from "./flags.js";
import { dataOption, rowCommand, runOnRows, withResume } from "./row-command.js";

const help = withResume(`\
The last message of an assistant is no part of the prompt.
In the output completion_ids end with a stop token, unless the completion was cut off at --max-new-tokens or at the
model's max_position_embeddings. logprobs are theirs at temperature 1, before --top-k and --top-p.

--stop TEXT: completion ends before the text, completion_ids end with the token that completes it.
--samples N: N lines a row, one after the other, each with its "sample" from 0 to N - 1; a batch has N completions a row.

Examples:
  heddle generate --model gemma --prompt "Why is the sky blue?"
  heddle generate --model gemma --data prompts.jsonl --out completions.jsonl --samples 4 --seed 1
  jq -c '{prompt: .question}' qa.jsonl | heddle generate --model gemma --data - --out - --stop $'\\n' --temperature 0`);

export const generateCommand = rowCommand("generate", help)
  .description("sample completions for each row of a file, or for one prompt")
  .addOption(dataOption("rows to continue"))
  .option("--prompt <text>", "one prompt, instead of --data; without --out its completion is printed")
  .option(
    "--out <file>",
    "JSONL to write: the row plus completion, completion_ids and logprobs; - for stdout",
    outputFile,
  )
  .option("--max-new-tokens <n>", "longest completion", integer(1), 256)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 1)
  .option("--top-k <k>", "sample among the k likeliest tokens, 0 for all", integer(0), 0)
  .option("--top-p <p>", "sample among the likeliest tokens that hold this share of the probability", share, 1)
  .option("--stop <text>", "a text that ends a completion; repeatable", collectTexts)
  .option("-n, --samples <n>", "completions of each row", integer(1), 1)
  .option("--seed <n>", "same seed, same completions", integer(0, 2 ** 31 - 1), 0)
  .action(async ({ prompt, data, out, ...options }) => {
    const { UserError } = await import("./errors.js");
    if ((data === undefined) === (prompt === undefined)) {
      throw new UserError(`expected --data FILE or --prompt TEXT, got ${data === undefined ? "neither" : "both"}`);
    }
    if (data !== undefined && out === undefined) throw new UserError("expected --out FILE beside --data, got none");
    const rows = data === undefined ? { data: "--prompt", text: JSON.stringify({ prompt }) } : { data };
    await runOnRows("generate", { ...options, ...rows, out: out ?? null });
  });
