/** `heddle rl`: one run of reinforcement learning alone. */
import { stageCommand } from "./stage-command.js";

export const rlCommand = stageCommand("rl", "reinforcement learning against a moving anchor");
