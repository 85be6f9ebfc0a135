/** The work of `heddle generate`: completions of every row. */
import { place, type Row } from "../../distill/data.js";
import { openModel } from "../../model/load.js";
import { jsonLogprobs } from "../batch-steps.js";
import { type CompletionOfRow, type CompletionOptions, completeRows } from "../completions.js";
import { computeOf, type DataOptions, type ModelOptions, openRows, readPrompts } from "../encoded-rows.js";
import type { TaskContext } from "../events.js";
import { identityOf } from "../identity.js";

export type GenerateParams = DataOptions &
  ModelOptions &
  CompletionOptions & {
    /** The file to write; null for the texts of the completions alone, on stdout. */
    readonly out: string | null;
  };

/**
 * Writes each row with `completion` (left out where the folder has no tokenizer), `completion_ids` (a stop token
 * included) and their `logprobs` at temperature 1; with several samples a line for each, numbered by `sample`. The same
 * parameters write the same file.
 */
export async function run(
  {
    model,
    adapter = null,
    dtype,
    loadIn4bit,
    loadIn8bit,
    out,
    data,
    text,
    system,
    allowControlTokens = false,
    ignoreChatTemplate = false,
    ...options
  }: GenerateParams,
  context: TaskContext,
): Promise<void> {
  const folder = await openModel(model, computeOf({ dtype, loadIn4bit, loadIn8bit }), adapter);
  const read = { system, allowControlTokens, ignoreChatTemplate };
  const rows = await openRows({ data, text, ...read });
  const prompts = await readPrompts(folder, rows);
  const identity = identityOf("generate", folder, rows.text, { ...read, ...options });
  const { samples = 1 } = options;
  const linesOf = (row: Row, completions: readonly CompletionOfRow[]) =>
    completions
      .map(({ ids, logprobs, text: completion }, sample) => {
        if (out === null) return `${completion}\n`;
        const made = { completion, completion_ids: ids, logprobs: jsonLogprobs(folder.dir, row[place]!, logprobs) };
        return `${JSON.stringify({ ...row, ...(samples === 1 ? {} : { sample }), ...made })}\n`;
      })
      .join("");
  const output = { stage: "generate", out: out ?? "-", identity, linesPerRow: samples };
  await completeRows(folder, prompts, options, output, context, linesOf);
}
