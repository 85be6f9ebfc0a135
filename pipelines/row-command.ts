/** What `score`, `generate` and `eval` have in common: their rows and the flags that concern these. */
import { Command, Option } from "@commander-js/extra-typings";
import { COMPUTE_DTYPES } from "../model/compute.js";
import { inputFile, integer, modelFolder } from "./flags.js";

const rowsHelp = `
Rows, one JSON object a line:
  {"prompt": "1+1="}      one message of the user, rendered by the model's chat template
                          (a plain text where the model folder has no template, or with --ignore-chat-template)
  {"messages": [...]}     a conversation of {"role", "content"}; content is a text, or parts of it as Gemma 3 takes them
  {"ids": [2, 5, 9]}      token ids, used as they are: no <bos> is added`;

const resumeHelp = `
Interrupted, by Ctrl-C (exit code 75) or by a kill, a command with --out FILE that is given again goes on at the first
batch of rows that is not whole in FILE.partial, and ends with the same bytes. With other flags, rows or models it is refused: remove FILE.partial to start over.`;

/** What a model that is used is kept and computed in. */
export const dtypeOption = () =>
  new Option(
    "--dtype <dtype>",
    "what the weights are kept and multiplied in: bfloat16 is half the memory in score and serve",
  )
    .choices(COMPUTE_DTYPES)
    .default("float32" as const);

/** Loads the weights in fewer bits; the words are those of the configs' keys. At most one of the two. */
export const in4bitOption = () =>
  new Option(
    "--load-in-4bit",
    "keep the layers' matrices in NF4, the embedding in int8: 1.64 GB for 2B (docs/quantisation.md)",
  ).conflicts("loadIn8bit");

export const in8bitOption = () => new Option("--load-in-8bit", "keep all matrices in int8");

export const adapterOption = () =>
  new Option(
    "--adapter <dir>",
    "PEFT adapter (LoRA) on the model, or its name on the hub; an adapter alone as --model takes the base that it names",
  ).argParser(modelFolder);

/** `rows` is said of it. */
export const dataOption = (rows: string) =>
  new Option("--data <file>", `${rows}, JSONL; - for stdin`).argParser(inputFile);

/** A command on rows. `help` stands below what all say of rows. */
export const rowCommand = (name: string, help: string) =>
  new Command(name)
    .requiredOption("--model <dir>", "model folder, or org/name[@revision] of the hub", modelFolder)
    .addOption(adapterOption())
    .option("--batch-size <n>", "rows at once", integer(1), 8)
    .addOption(dtypeOption())
    .addOption(in4bitOption())
    .addOption(in8bitOption())
    .addOption(
      new Option("--system <policy>", "what a system message leads to: fold puts its text first")
        .choices(["error", "fold", "drop"] as const)
        .default("error" as const),
    )
    .option(
      "--allow-control-tokens",
      "what messages spell like <end_of_turn> ends the turn; otherwise it is text",
      false,
    )
    .option("--ignore-chat-template", "take a prompt as a plain text", false)
    .addHelpText("after", `${rowsHelp}\n${help}`);

/**
 * Runs a task on rows. `data` and `out` may be "-": then the rows come from stdin, and what goes to stdout cannot go on.
 * `printed` says what the command prints beside the rows.
 */
export async function runOnRows<Result>(
  task: "score" | "generate" | "eval",
  options: { readonly data: string; readonly out?: string | null; readonly text?: string },
  printed: string | null = null,
): Promise<Result> {
  const { UserError } = await import("./errors.js");
  if (options.out === "-" && printed !== null) {
    throw new UserError(`--out: expected a file, since ${printed} goes to stdout, got -`);
  }
  const { runInForeground } = await import("./foreground.js");
  const isResumable = typeof options.out === "string" && options.out !== "-";
  const rows = options.data === "-" ? { data: "stdin", text: await readStdin() } : {};
  return runInForeground<Result>(task, { ...options, ...rows }, { isResumable });
}

async function readStdin(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += chunk;
  return text;
}

export const withResume = (help: string) => `${help}\n${resumeHelp}`;
