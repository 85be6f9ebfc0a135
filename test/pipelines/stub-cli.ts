/** A program built as `heddle` is, whose command runs the stub task. The tests start it as a process of its own. */
import { Command } from "@commander-js/extra-typings";
import { runProgram } from "../../pipelines/exit.js";
import { runInForeground } from "../../pipelines/foreground.js";

const program = new Command("stub").addCommand(
  new Command("run")
    .argument("<params>")
    .option("--resumable", "", false)
    .action(async (params, { resumable: isResumable }) => {
      const task = new URL("./stub-task.js", import.meta.url);
      const result = await runInForeground(task, JSON.parse(params), { isResumable });
      process.stdout.write(`${JSON.stringify(result)}\n`);
    }),
);
process.exitCode = await runProgram(program as Command, process.argv.slice(2));
