/** `heddle eval`: how often a model's completion is the row's answer, or the likeliest choice the right one. */
import { collectTexts, integer, number, outputFile } from "./flags.js";
import { dataOption, rowCommand, runOnRows, withResume } from "./row-command.js";

const help = withResume(`\
Each row also has "answer", a text: a completion that equals it, but for blanks around it, is right.
Printed is {"accuracy", "count", "standard_error"}. --out adds completion and correct to each row.

Rows that have "choices", a list of texts, and as "answer" one of them or its index from 0, are judged by likelihood: of
the choices after the prompt the likeliest is the model's. A choice follows the prompt as it is, so that it begins with
a blank where one belongs between them. Printed is {"acc", "acc_norm", "acc_bytes", "count", "acc_stderr", ...}, as
lm-evaluation-harness defines them: acc_norm takes the likeliest by character, acc_bytes by byte, blanks before a choice
not counted. --out adds loglikelihoods, in nats, and what was chosen.

Examples:
  heddle eval --model gemma --data sums.jsonl --max-new-tokens 16
  heddle eval --model gemma --data arc.jsonl --ignore-chat-template --out judged.jsonl
      {"prompt": "Question: What do plants breathe in?\\nAnswer:", "choices": [" Oxygen", " Carbon dioxide"], "answer": 1}
`);

export const evalCommand = rowCommand("eval", help)
  .description(
    "compare completions, or choices by their likelihood, with the rows' answers; one line of JSON on stdout",
  )
  .addOption(dataOption("rows with an answer").makeOptionMandatory())
  .option("--out <file>", "JSONL to write: the row and how it was answered", outputFile)
  .option("--max-new-tokens <n>", "longest completion", integer(1), 256)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 0)
  .option("--stop <text>", "a text that ends a completion; repeatable", collectTexts)
  .action(async (options) => {
    const result = await runOnRows("eval", options, "the result");
    process.stdout.write(`${JSON.stringify(result)}\n`);
  });
