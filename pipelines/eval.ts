/** `heddle eval`: how often a model's completion is the row's answer. */
import { Command } from "@commander-js/extra-typings";
import { existingFile, existingFolder, integer, number } from "./flags.js";
import { rowsHelp, systemOption } from "./row-flags.js";

const help = `${rowsHelp}
Each row also has "answer", a text: a completion that equals it, but for blanks around it, is right.
Printed is {"accuracy", "count", "standard_error"}.`;

export const evalCommand = new Command("eval")
  .description("compare completions with the rows' answers; one line of JSON on stdout")
  .requiredOption("--model <dir>", "model folder", existingFolder)
  .requiredOption("--data <file>", "rows with an answer, JSONL", existingFile)
  .option("--max-new-tokens <n>", "longest completion", integer(1), 256)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 0)
  .option("--batch-size <n>", "rows at once", integer(1), 8)
  .addOption(systemOption)
  .addHelpText("after", help)
  .action(async (options) => {
    const { runInForeground } = await import("./foreground.js");
    const result = await runInForeground("eval", options, { isResumable: false });
    process.stdout.write(`${JSON.stringify(result)}\n`);
  });
