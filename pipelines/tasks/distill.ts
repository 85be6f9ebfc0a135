/** The work of `heddle distill`. */
import { distill } from "../../distill/distill.js";
import { baseAsTeacher, closeTeacher, openTeacher } from "../../distill/targets.js";
import type { ConfigFor } from "../config.js";
import type { TaskContext } from "../events.js";
import type { Run } from "../run-folder.js";
import { sharedBase } from "../shared-base.js";
import { doneLine, inRun, readPrompts, runStage } from "../stages.js";

/** Gives the text to print. */
export const run = (config: ConfigFor<"distill">, context: TaskContext): Promise<string> =>
  inRun(config, async (run) => doneLine(await runDistillation(run, config, context)));

/** Distils the model of the config; gives the folder of the result. */
export function runDistillation(run: Run, config: ConfigFor<"distill">, context: TaskContext): Promise<string> {
  const settings = config.distill;
  return runStage(run, config, context, { phase: "distill" }, config.model, settings, async (student, stage) => {
    const rows = await readPrompts(config.train_data, student.folder, config, settings.max_new_tokens);
    const onRetry = (text: string) => context.emit({ type: "note", text });
    const dtype = config.teacher_dtype;
    const shared = await sharedBase(config.teacher, config.model, settings.lora);
    const teacher = shared
      ? await baseAsTeacher(student, dtype, shared.adapter)
      : await openTeacher(config.teacher, student.folder, { dtype, onRetry });
    try {
      await distill(student, teacher, rows, settings, stage);
    } finally {
      await closeTeacher(teacher);
    }
  });
}
