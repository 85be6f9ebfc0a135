/** What `score`, `generate` and `eval` have in common: their rows and the flags that concern these. */
import { Command, Option } from "@commander-js/extra-typings";
import { COMPUTE_DTYPES } from "../model/compute.js";
import { existingFile, existingFolder, integer } from "./flags.js";

const rowsHelp = `
Rows, one JSON object a line:
  {"prompt": "1+1="}      one message of the user, rendered by the model's chat template
                          (a plain text where the model folder has no template)
  {"messages": [...]}     a conversation of {"role", "content"}
  {"ids": [2, 5, 9]}      token ids, used as they are: no <bos> is added`;

/** What a model that is used is kept and computed in. */
export const dtypeOption = () =>
  new Option(
    "--dtype <dtype>",
    "what the weights are kept and multiplied in: bfloat16 is half the memory in score and serve",
  )
    .choices(COMPUTE_DTYPES)
    .default("float32" as const);

/** A command on the rows of a file. `rows` is said of --data, and `help` below what all say of rows. */
export const rowCommand = (name: string, { rows, help }: { rows: string; help: string }) =>
  new Command(name)
    .requiredOption("--model <dir>", "model folder", existingFolder)
    .requiredOption("--data <file>", `${rows}, JSONL`, existingFile)
    .option("--batch-size <n>", "rows at once", integer(1), 8)
    .addOption(dtypeOption())
    .addOption(
      new Option("--system <policy>", "what a system message leads to: fold puts its text first")
        .choices(["error", "fold", "drop"] as const)
        .default("error" as const),
    )
    .addHelpText("after", `${rowsHelp}\n${help}`);

/** Runs a task that writes the file `out`, and removes what it left beside that file if it was killed. */
export async function runToFile(task: "score" | "generate", options: { readonly out: string }): Promise<void> {
  const { runInForeground } = await import("./foreground.js");
  const { removeLeftovers } = await import("./output-file.js");
  try {
    await runInForeground(task, options, { isResumable: false });
  } finally {
    removeLeftovers(options.out);
  }
}
