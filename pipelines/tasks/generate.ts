/** The work of `heddle generate`: a completion of every row. */
import { place } from "../../distill/data.js";
import { openModel } from "../../model/load.js";
import { jsonLogprobs } from "../batch-steps.js";
import { type CompletionOptions, completeRows } from "../completions.js";
import { type DataOptions, type ModelOptions, readPrompts } from "../encoded-rows.js";
import type { TaskContext } from "../events.js";
import { writeStreamed } from "../output-file.js";

export type GenerateParams = DataOptions & ModelOptions & CompletionOptions & { readonly out: string };

/**
 * Writes each row with `completion` (left out where the folder has no tokenizer), `completion_ids` (a stop token
 * included) and their `logprobs` at temperature 1. The same parameters write the same file.
 */
export async function run(
  { model, dtype = "float32", out, data, system, ...options }: GenerateParams,
  context: TaskContext,
): Promise<void> {
  const folder = await openModel(model, { dtype });
  const prompts = await readPrompts(folder, { data, system });
  await writeStreamed(out, (write) =>
    completeRows("generate", folder, prompts, options, context, async (row, { ids, logprobs }) => {
      const made = {
        completion: await folder.tokenizer?.decode(ids),
        completion_ids: ids,
        logprobs: jsonLogprobs(logprobs, row[place]!),
      };
      write(`${JSON.stringify({ ...row, ...made })}\n`);
    }),
  );
}
