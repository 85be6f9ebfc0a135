/** `heddle sft`: supervised fine-tuning alone. */
import { stageCommand } from "./stage-command.js";

export const sftCommand = stageCommand("sft", "fine-tune a model on the completions in a file");
