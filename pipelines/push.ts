/** `heddle push`: a model or adapter folder, to the Hugging Face Hub. */
import { Command } from "@commander-js/extra-typings";
import { existingFolder } from "./flags.js";

const help = `
Uploaded are config, tokenizer, chat template, safetensors, README.md and licence of the folder, in one commit; what is
not there yet is made: the repository and the branch. The token is HF_TOKEN, else that of \`hf auth login\`; it must be
allowed to write.`;

export const pushCommand = new Command("push")
  .description("upload a model or adapter folder to the Hugging Face Hub; prints its address")
  .argument("<dir>", "model folder or adapter folder", existingFolder)
  .argument("<name>", "org/name")
  .option("--private", "make the repository, which must be new or private already, a private one", false)
  .option("--revision <branch>", "branch to commit to", "main")
  .option("--message <text>", "title of the commit", "Upload model with heddle")
  .addHelpText("after", help)
  .action(async (dir, name, options) => {
    const { pushModel } = await import("../hub/push.js");
    const { SAME_COMMAND, withByteProgress } = await import("./byte-progress.js");
    const address = await withByteProgress(`push ${name}`, SAME_COMMAND, (run) =>
      pushModel(dir, name, { ...options, ...run }),
    );
    process.stdout.write(`${address}\n`);
  });
