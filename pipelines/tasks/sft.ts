/** The work of `heddle sft`. */
import { sft } from "../../distill/sft.js";
import type { ConfigFor } from "../config.js";
import type { TaskContext } from "../events.js";
import { doneLine, inRun, readPrompts, runStage } from "../stages.js";

/** Gives the text to print. */
export function run(config: ConfigFor<"sft">, context: TaskContext): Promise<string> {
  const settings = config.sft;
  return inRun(config, async (run) => {
    const dir = await runStage(run, config, context, { phase: "sft" }, config.model, settings, async (model, stage) => {
      const rows = await readPrompts(config.train_data, model.folder, config, settings.max_new_tokens);
      await sft(model, rows, settings, stage);
    });
    return doneLine(dir);
  });
}
