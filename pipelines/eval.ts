/** `heddle eval`: how often a model's completion is the row's answer. */
import { integer, number } from "./flags.js";
import { rowCommand } from "./row-command.js";

const help = `\
Each row also has "answer", a text: a completion that equals it, but for blanks around it, is right.
Printed is {"accuracy", "count", "standard_error"}.`;

export const evalCommand = rowCommand("eval", { rows: "rows with an answer", help })
  .description("compare completions with the rows' answers; one line of JSON on stdout")
  .option("--max-new-tokens <n>", "longest completion", integer(1), 256)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 0)
  .action(async (options) => {
    const { runInForeground } = await import("./foreground.js");
    const result = await runInForeground("eval", options, { isResumable: false });
    process.stdout.write(`${JSON.stringify(result)}\n`);
  });
