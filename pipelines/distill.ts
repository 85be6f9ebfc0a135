/** `heddle distill`: distillation alone. */
import { stageCommand } from "./stage-command.js";

export const distillCommand = stageCommand("distill", "learn from a teacher on the student's own samples");
