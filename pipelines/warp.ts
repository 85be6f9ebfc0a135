/** `heddle warp`: the main job. */
import { stageCommand } from "./stage-command.js";

export const warpCommand = stageCommand("warp", "the whole recipe: distil, RL runs, SLERP, LITI, again; resumable");
