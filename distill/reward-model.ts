/**
 * What completions are rewarded for: the row's answer, or what a reward model says of them. As in TRL's trainers, that is a
 * model for sequence classification with one label; it sees prompt and completion by its own chat template and tokenizer.
 */
import { join } from "node:path";
import { sharedPrefix, sizesOfBatch } from "../model/batch.js";
import { labelScores } from "../model/classify.js";
import type { ComputeDtype } from "../model/compute.js";
import { finite, ModelError } from "../model/errors.js";
import { type ModelFolder, openFolder } from "../model/load.js";
import { disposeModel, type LoadedModel, loadParameters } from "../model/loaded.js";
import { answerOf, DataError, place } from "./data.js";
import { type EncodedRow, judgedIds } from "./encode.js";
import { exactMatch } from "./rewards.js";

/** `rl.reward` of the config: 1 where the completion is the row's answer, else 0; or the score of a model. */
export type RewardSetting = "exact_match" | { readonly model: string; readonly dtype: ComputeDtype };

/** A reward model with its weights; one that is opened has none yet. */
export type Reward<M = LoadedModel> = "exact_match" | M;

/** Opens and checks the folder of a reward model for this policy, without its weights. */
export async function openReward(setting: RewardSetting, policy: ModelFolder): Promise<Reward<ModelFolder>> {
  if (setting === "exact_match") return setting;
  const folder = await openFolder(setting.model, { dtype: setting.dtype });
  checkFolder(folder, policy);
  return folder;
}

function checkFolder({ dir, config, tokenizer, chat }: ModelFolder, policy: ModelFolder): void {
  const expected = "expected a reward model: one for sequence classification (such as Gemma2ForSequenceClassification)";
  const { numLabels } = config;
  if (numLabels === null)
    throw new ModelError(join(dir, "config.json"), `describes a language model, ${expected} with one label`);
  if (numLabels !== 1)
    throw new ModelError(
      join(dir, "config.json"),
      `describes a classifier of ${numLabels} labels, ${expected} with one label, "num_labels": 1`,
    );
  const file = join(dir, "tokenizer.json");
  if (tokenizer === null)
    throw new ModelError(
      file,
      "no such file, expected the reward model's own tokenizer: prompts and completions come to it as text",
    );
  if (!chat.hasTemplate) {
    if (!policy.chat.hasTemplate) return;
    throw new ModelError(
      dir,
      'no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json), expected that of the ' +
        `reward model's training, since the prompts of the policy (${policy.dir}) are chats`,
    );
  }
  const rendered = chat.renderPrompt([{ role: "user", content: "" }]);
  const missing = ["<start_of_turn>", "<end_of_turn>"].find(
    (token) => rendered.includes(token) && tokenizer.idOf(token) === null,
  );
  if (missing === undefined) return;
  throw new ModelError(
    file,
    `has no token ${missing}, which the chat template renders; expected the tokenizer that the reward model was trained with`,
  );
}

/** Loads what was opened; closeReward frees it. */
export async function loadReward(opened: Reward<ModelFolder>): Promise<Reward> {
  if (opened === "exact_match") return opened;
  const { config, parameters } = await loadParameters(opened);
  return { folder: { ...opened, config }, parameters };
}

export function closeReward(reward: Reward): void {
  if (reward !== "exact_match") disposeModel(reward);
}

/**
 * Refuses rows whose completions cannot be rewarded: without an answer to match, or with a prompt that is too long for the
 * reward model. Gives of the prompts with empty answers how many tokens the longest has there, and all begin with.
 * @throws DataError with the row's place
 */
export async function checkRewarded(
  opened: Reward<ModelFolder>,
  rows: readonly EncodedRow[],
  maxNewTokens: number,
): Promise<{ readonly longest: number; readonly sharedPrefix: number }> {
  if (opened === "exact_match") {
    for (const { row } of rows) answerOf(row);
    return { longest: 0, sharedPrefix: 0 };
  }
  const { dir, config } = opened;
  const answered = ({ row, read }: EncodedRow, text: string) => judgedIds(opened, row, read, answerOfText(text));
  const prompts = await Promise.all(rows.map((row) => answered(row, "")));
  const long = prompts.findIndex(({ length }) => length + maxNewTokens > config.maxPositionEmbeddings);
  // What follows an empty answer is no part of what all begin with, also where there is one prompt only.
  const prefix = sharedPrefix([...prompts, await answered(rows[0]!, "1")]);
  if (long < 0)
    return { longest: prompts.reduce((most, { length }) => Math.max(most, length), 0), sharedPrefix: prefix };
  throw new DataError(
    `${rows[long]!.row[place] ?? "row"}: the prompt with an empty answer has ${prompts[long]!.length} tokens of the reward ` +
      `model (${dir}); with max_new_tokens ${maxNewTokens} expected at most ${config.maxPositionEmbeddings}, its max_position_embeddings`,
  );
}

const answerOfText = (content: string) => ({ role: "assistant", content });

/** The first `limit` ids without those at the answer's end: what follows the answer, as in `empty`, which has none, stays. */
function cutAnswer(ids: readonly number[], empty: readonly number[], limit: number): number[] {
  const prefix = sharedPrefix([ids, empty]);
  let after = 0;
  while (after < empty.length - prefix && ids.at(-1 - after) === empty.at(-1 - after)) after++;
  return [...ids.slice(0, limit - after), ...ids.slice(ids.length - after)];
}

/** What is rewarded: the text of a completion of a row's prompt. */
export type Completed = { readonly row: EncodedRow; readonly text: string };

/**
 * A function from completions of these rows to their rewards. A reward model looks at `size` of them at a time; those that
 * are no whole number of times `size` are filled up, so that few programs are compiled.
 * @throws DataError as checkRewarded; the function, ModelError where a reward is not finite
 */
export async function rewarder(
  reward: Reward,
  rows: readonly EncodedRow[],
  { maxNewTokens, size }: { readonly maxNewTokens: number; readonly size: number },
): Promise<(completed: readonly Completed[]) => Promise<number[]>> {
  const opened = reward === "exact_match" ? reward : reward.folder;
  const { longest, sharedPrefix } = await checkRewarded(opened, rows, maxNewTokens);
  if (reward === "exact_match")
    return async (completed) => completed.map(({ row: { row }, text }) => exactMatch(text, answerOf(row)));
  const { folder, parameters } = reward;
  const { config } = folder;
  const limit = config.maxPositionEmbeddings;
  // Its tokens may be more than the policy's.
  const likely = { likely: Math.min(limit, longest + maxNewTokens), limit, sharedPrefix };
  return async (completed) => {
    const sequences = await Promise.all(
      completed.map(async ({ row: { row, read }, text }) => {
        const ids = await judgedIds(folder, row, read, answerOfText(text));
        return ids.length <= limit ? ids : cutAnswer(ids, await judgedIds(folder, row, read, answerOfText("")), limit);
      }),
    );
    const scores: number[] = [];
    for (let begin = 0; begin < sequences.length; begin += size) {
      const some = sequences.slice(begin, begin + size);
      const filled = Array.from({ length: size }, (_, i) => some[i % some.length]!);
      const batch = labelScores(parameters, config, filled, sizesOfBatch(filled, likely));
      some.forEach((_, i) => {
        const { row } = completed[begin + i]!.row;
        scores.push(...finite(folder.dir, `the score of ${row[place] ?? "row"}`, batch[i]!));
      });
    }
    return scores;
  };
}
