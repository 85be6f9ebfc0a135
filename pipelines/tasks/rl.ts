/** The work of `heddle rl`: one run of RL. */
import { closeReward, loadReward, openReward } from "../../distill/reward-model.js";
import { rl } from "../../distill/rl.js";
import type { ConfigFor } from "../config.js";
import type { TaskContext } from "../events.js";
import type { Run } from "../run-folder.js";
import { doneLine, inRun, readPrompts, runStage, type StageName } from "../stages.js";

/** Gives the text to print. */
export const run = (config: ConfigFor<"rl">, context: TaskContext): Promise<string> =>
  inRun(config, async (run) => doneLine(await runRl(run, config, context, { phase: "rl" }, config.model)));

/** One run of RL from the model in `init`; gives the folder of the result. */
export function runRl(
  run: Run,
  config: ConfigFor<"rl">,
  context: TaskContext,
  name: StageName & { phase: "rl" },
  init: string,
): Promise<string> {
  const settings = config.rl;
  return runStage(run, config, context, name, init, settings, async (policy, stage) => {
    const rows = await readPrompts(config.train_data, policy.folder, config, settings.max_new_tokens);
    const reward = await loadReward(await openReward(settings.reward, policy.folder));
    try {
      await rl(policy, reward, rows, settings, stage);
    } finally {
      closeReward(reward);
    }
  });
}
