/** `heddle pull`: a model of the Hugging Face Hub, into the cache that transformers and vLLM share. */
import { Command } from "@commander-js/extra-typings";

const help = `
Downloaded are config, tokenizer, chat template and safetensors, into the cache that transformers and vLLM read, too.
Interrupted, it exits with 75: the same command again goes on within the file. Every file is checked against its hash.
Variables, as in huggingface_hub: HF_TOKEN (else the token of \`hf auth login\`), HF_HOME, HF_HUB_CACHE, HF_ENDPOINT,
HF_HUB_OFFLINE=1 (the cache is all there is), HTTPS_PROXY.`;

export const pullCommand = new Command("pull")
  .description("download a model or adapter of the Hugging Face Hub; prints its folder")
  .argument("<name>", "org/name, or org/name@revision (a branch, tag or commit)")
  .option("--out <dir>", "copy it to this folder, too, and print that one")
  .addHelpText("after", help)
  .action(async (text, { out }) => {
    const { modelName } = await import("../hub/name.js");
    const { pullModel } = await import("../hub/pull.js");
    const { copyModel } = await import("../hub/copy.js");
    const { mayReplace } = await import("../model/save.js");
    const { SAME_COMMAND, withByteProgress } = await import("./byte-progress.js");
    const name = modelName(text);
    // Nobody downloads for hours to hear of a folder that is taken.
    if (out !== undefined) await mayReplace(out);
    const folder = await withByteProgress(`pull ${text}`, SAME_COMMAND, async (run) => {
      const snapshot = await pullModel(name, run);
      if (out !== undefined) await copyModel(snapshot, out, run.signal);
      return snapshot;
    });
    process.stdout.write(`${out ?? folder}\n`);
  });
