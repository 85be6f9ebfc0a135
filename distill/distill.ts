/**
 * On-policy distillation (GKD, arXiv 2306.13649): the student samples completions, the teacher scores every token of
 * them, and the divergence of the two is minimised, token by token.
 */

import { tf } from "tfjs-jit";
import type { Sequence } from "../model/batch.js";
import { computedAs, type ModelConfig } from "../model/config.js";
import type { Weights } from "../model/forward.js";
import type { LoadedModel } from "../model/loaded.js";
import { type BatchTensors, completionHidden } from "../model/scoring.js";
import { trainingStep } from "../student/optimiser.js";
import { withTrainable } from "../student/trainable.js";
import { tokenizerSha256 } from "../teacher/tokenizer-hash.js";
import { deriveSeed, planBatch } from "./batches.js";
import { type EncodedRow, encodeCompletions, sizesOfRows } from "./encode.js";
import { TrainingError } from "./errors.js";
import { countedTokens, learnFromParts, microBatches } from "./micro-batches.js";
import { rollOut } from "./rollouts.js";
import { compileSchedules, optimiserAt, rowsOfPart, type ScheduleValue, type TrainingSettings } from "./settings.js";
import { divergenceFrom, type TargetLoss, type Targets, type Teacher, targetsOf } from "./targets.js";
import { meanLoss } from "./token-loss.js";
import { type Coefficient, checkRemoteTopK, checkTopK } from "./top-k.js";
import { type StageContext, train } from "./training.js";

/** The `distill` section of the config, which documents each key. */
export type DistillSettings = TrainingSettings & {
  readonly batch_size: number;
  readonly beta: ScheduleValue;
  readonly lmbda: ScheduleValue;
  readonly seq_kd: boolean;
  readonly temperature: ScheduleValue;
  readonly loss_temperature: ScheduleValue;
  readonly loss_top_k: number;
  readonly loss_add_tail: boolean;
};

/** Trains the student in place. */
export async function distill(
  student: LoadedModel,
  teacher: Teacher,
  rows: readonly EncodedRow[],
  settings: DistillSettings,
  context: StageContext,
): Promise<void> {
  const { config } = student.folder;
  const { steps, batch_size: size, max_new_tokens: maxNewTokens, loss_top_k, loss_add_tail: addTail } = settings;
  const k = loss_top_k === 0 ? config.vocabSize : loss_top_k;
  checkTopK({ k, vocabulary: config.vocabSize });
  await checkTeacher(teacher, student);
  const names = [
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "beta",
    "lmbda",
    "temperature",
    "loss_temperature",
  ] as const;
  const at = await compileSchedules(settings, names);
  const shape = { samples: 1, maxNewTokens };
  const sizes = sizesOfRows(rows, { ...shape, rows: size });
  const sizesOfPart = sizesOfRows(rows, { ...shape, rows: rowsOfPart(size, settings) });

  /** The completions that a step learns from: the student's own, the teacher's, or those of the data. */
  async function sequencesOf(step: number, now: { lmbda: number; temperature: number }): Promise<Sequence[]> {
    const picked = planBatch({ seed: context.seed, stage: context.stage, step, rows: rows.length, size }).map(
      (i) => rows[i]!,
    );
    const isOnPolicy = Math.floor(step * now.lmbda) > Math.floor((step - 1) * now.lmbda);
    if (!isOnPolicy && !settings.seq_kd) {
      const completions = await encodeCompletions(student.folder, picked, maxNewTokens);
      return picked.map(({ prompt }, row) => ({ prompt, completions: [completions[row]!] }));
    }
    const author = !isOnPolicy && teacher.kind === "local" ? teacher.model : student;
    const seed = deriveSeed(context.seed, context.stage, "sample", step);
    const prompts = picked.map(({ prompt }) => prompt);
    return rollOut(author, prompts, sizes, { temperature: now.temperature, seed }).sequences;
  }

  await withTrainable(student.parameters, settings, async (trainable) => {
    const learning = computedAs(config, { segments: trainable.segments });
    await train(trainable, {}, settings, context, async (step, own) => {
      const begin = performance.now();
      const now = at({ step, steps, iteration: context.iteration });
      if (teacher.kind === "remote")
        checkRemoteTopK({ k, vocabulary: config.vocabSize, temperature: now.loss_temperature, addTail });
      const parts = microBatches(await sequencesOf(step, now), sizesOfPart, own);
      const tokens = countedTokens(parts);
      const how = own({
        k,
        addTail,
        beta: coefficient(now.beta, [0, 1]),
        temperature: coefficient(now.loss_temperature, [1]),
        tokens: tf.scalar(tokens),
      });
      const { loss, grad_norm } = await learnFromParts(
        parts,
        own(optimiserAt(settings, step, now)),
        async (part, optimiser) => {
          const targets = own(await targetsOf(teacher, part.batch, part.tensors, k, config.vocabSize));
          const result = distillStep(trainable, [learning, part.tensors, targets, how], optimiser);
          tf.dispose(targets as unknown as tf.TensorContainer);
          return result;
        },
      );
      return {
        loss,
        learning_rate: now.learning_rate,
        grad_norm,
        completion_length: tokens / size,
        tokens_per_second: (1000 * tokens) / (performance.now() - begin),
      };
    });
  });
}

/** A constant where the loss has a form of its own, else a tensor that may change from step to step. */
const coefficient = (value: number, special: readonly number[]): Coefficient =>
  special.includes(value) ? value : tf.scalar(value);

const distillStep = trainingStep(
  "distillStep",
  (
    weights: Weights,
    config: ModelConfig,
    batch: BatchTensors,
    targets: Targets,
    { tokens, ...loss }: TargetLoss & { tokens: tf.Tensor },
  ) => meanLoss(completionHidden(weights, config, batch), batch.counted_W, tokens, divergenceFrom(targets, loss)),
);

/** Ids must mean the same to both models; a teacher over HTTP was compared when it was opened. */
async function checkTeacher(teacher: Teacher, student: LoadedModel): Promise<void> {
  if (teacher.kind === "remote") return;
  const { dir, tokenizerDir, config } = student.folder;
  const theirs = teacher.model.folder;
  const need = "expected models of one family, whose token ids mean the same";
  if (theirs.config.vocabSize !== config.vocabSize)
    throw new TrainingError(
      `${theirs.dir}: the teacher's vocabulary has ${theirs.config.vocabSize} entries, the student's (${dir}) ${config.vocabSize}; ${need}`,
    );
  const [ours, others] = [await tokenizerSha256(tokenizerDir), await tokenizerSha256(theirs.tokenizerDir)];
  if (ours !== null && others !== null && ours !== others)
    throw new TrainingError(
      `${theirs.dir}: the teacher's tokenizer (sha256 ${others.slice(0, 12)}...) gives other ids to tokens than ` +
        `the student's (${dir}, ${ours.slice(0, 12)}...); ${need}`,
    );
}
