/** `heddle chat`: a conversation with a model in the terminal. */
import { Command } from "@commander-js/extra-typings";
import { integer, modelFolder, number, share } from "./flags.js";
import { adapterOption, dtypeOption, in4bitOption, in8bitOption } from "./row-command.js";

const help = `
Each line is a message. /reset begins a new conversation, /exit or Ctrl-D leaves; Ctrl-C ends an answer, and leaves where
none is being given. Where stdin is no terminal its lines are messages too, and stdout gets the answers alone.

The model's chat template renders the conversation, and keys and values of what was said before are kept.

Examples:
  heddle chat --model gemma --system "Answer in one sentence."
  printf 'My name is Ada.\\nWhat is my name?\\n' | heddle chat --model gemma --temperature 0`;

export const chatCommand = new Command("chat")
  .description("talk with a model in the terminal")
  .requiredOption("--model <dir>", "model folder with a chat template, or org/name[@revision] of the hub", modelFolder)
  .addOption(adapterOption())
  .option("--system <text>", "what stands before the first message")
  .option("--max-new-tokens <n>", "longest answer", integer(1), 512)
  .option("--temperature <t>", "0 takes the likeliest token", number(0), 1)
  .option("--top-k <k>", "sample among the k likeliest tokens, 0 for all", integer(0), 64)
  .option("--top-p <p>", "sample among the likeliest tokens that hold this share of the probability", share, 0.95)
  .option("--seed <n>", "same seed, same answers (default: another each time)", integer(0, 2 ** 31 - 1))
  .addOption(dtypeOption())
  .addOption(in4bitOption())
  .addOption(in8bitOption())
  .addHelpText("after", help)
  .action(async ({ system = null, seed = Math.floor(Math.random() * 2 ** 31), ...options }) => {
    const { chat } = await import("./chat-terminal.js");
    await chat({ ...options, system, seed });
  });
