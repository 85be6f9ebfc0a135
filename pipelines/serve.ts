/** `heddle serve`: a model over HTTP, as a teacher for other students. */
import { Command } from "@commander-js/extra-typings";
import { integer, modelFolder } from "./flags.js";
import { adapterOption, dtypeOption, in4bitOption, in8bitOption } from "./row-command.js";

export const serveCommand = new Command("serve")
  .description("answer vLLM's /v1/completions with prompt_logprobs: a teacher over HTTP")
  .requiredOption(
    "--model <dir>",
    "model folder, or org/name[@revision] of the hub; its name, or the adapter's, is the one for clients",
    modelFolder,
  )
  .addOption(adapterOption())
  .option("--host <address>", "address to listen on", "127.0.0.1")
  .option("--port <n>", "port to listen on, 0 for a free one", integer(0, 65535), 8000)
  .option("--max-logprobs <k>", "largest prompt_logprobs, -1 for the vocabulary", integer(-1), -1)
  .option("--max-batch-tokens <n>", "tokens that are scored at once", integer(16), 4096)
  .addOption(dtypeOption())
  .addOption(in4bitOption())
  .addOption(in8bitOption())
  .option("--fixed-shapes", "scores with the same bits whatever else is being scored; slower under light load", false)
  .action(async (options) => {
    const { serveModel } = await import("./serve-model.js");
    const { compiledModule } = await import("../config/paths.js");
    await serveModel(options, compiledModule("pipelines/tasks/serve.js"));
  });
