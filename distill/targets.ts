/** What the teacher says of a batch, as tensors for the loss. W as in batch.ts: the tokens of the completions. */

import { tf } from "tfjs-jit";
import type { Batch } from "../model/batch.js";
import type { ComputeDtype } from "../model/compute.js";
import { computedAs, type ModelConfig } from "../model/config.js";
import { headDtype } from "../model/forward.js";
import { logitsOf } from "../model/head.js";
import { type ModelFolder, openModel } from "../model/load.js";
import { type LoadedModel, loadModel, loadOnBase } from "../model/loaded.js";
import { disposeParameters, type Parameters, readParameters } from "../model/parameters.js";
import { matrixOf, partNames } from "../model/quantised.js";
import { type BatchTensors, completionHidden, jitForward } from "../model/scoring.js";
import { EMBEDDING } from "../model/shapes.js";
import { baseOf } from "../student/lora.js";
import { httpTeacher } from "../teacher/http.js";
import type { RemoteTeacher, ScoreRequest, TokenScores } from "../teacher/teacher.js";
import { tokenizerSha256 } from "../teacher/tokenizer-hash.js";
import { type DivergenceOptions, divergence, divergenceTopK } from "./losses.js";
import type { ChunkOf, TokenFunction } from "./token-loss.js";
import { type TopK, topKOfLogits, topKOfServer } from "./top-k.js";

/** A model in this process, or one behind an address: the only difference between them is here. */
export type Teacher =
  | {
      readonly kind: "local";
      readonly model: LoadedModel;
      /** Those of its weights that are not the student's too. @default all */
      readonly own?: Parameters;
    }
  | { readonly kind: "remote"; readonly client: RemoteTeacher };

/**
 * Opens a model folder or an http(s) address as a teacher of this student; the rest of a run does not see which it is. A
 * model of this process is kept and computed in `dtype`.
 */
export async function openTeacher(
  where: string,
  student: ModelFolder,
  { dtype, onRetry }: { readonly dtype: ComputeDtype; readonly onRetry: (message: string) => void },
): Promise<Teacher> {
  if (!/^https?:/.test(where)) return { kind: "local", model: await loadModel(where, { dtype, learns: false }) };
  const identity = {
    vocabSize: student.config.vocabSize,
    tokenizerSha256: await tokenizerSha256(student.tokenizerDir),
  };
  return { kind: "remote", client: await httpTeacher(where, { student: identity, onRetry }) };
}

/**
 * The base of a student that learns an adapter, as its own teacher: in one copy, computed in `dtype`. `adapter` is the folder
 * of the teacher's own adapter on that base, null for none.
 */
export async function baseAsTeacher(
  { folder, parameters }: LoadedModel,
  dtype: ComputeDtype,
  adapter: string | null = null,
): Promise<Teacher> {
  const config = computedAs(folder.config, { dtype });
  const base = { folder: { ...folder, config }, parameters: baseOf(parameters) };
  if (adapter === null) return { kind: "local", model: base, own: {} };
  const { adapter: own } = await openModel(folder.dir, { dtype }, adapter);
  return { kind: "local", ...(await loadOnBase(base, own!)) };
}

export async function closeTeacher(teacher: Teacher): Promise<void> {
  if (teacher.kind === "remote") await teacher.client.close();
  else disposeParameters(teacher.own ?? teacher.model.parameters);
}

/** Of a local teacher: what its logits are made of. The embedding is the teacher's own. */
type HiddenTargets = {
  readonly hidden_WD: tf.Tensor2D;
  /** Its tensor by name, or those that it is quantised in. */
  readonly embedding: Parameters;
  readonly softCap: number | null;
  readonly dtype?: ComputeDtype;
};

/** Of a remote teacher that is asked for the whole vocabulary: logits, up to a constant a row. */
type DenseTargets = { readonly logits_WV: tf.Tensor2D };

/** Of a remote teacher that is asked for less: the k likeliest tokens at temperature 1. */
type SparseTargets = Required<TopK>;

export type Targets = HiddenTargets | DenseTargets | SparseTargets;

/** What the teacher says; k is the tokens asked of a remote one. The caller disposes the tensors. */
export async function targetsOf(
  teacher: Teacher,
  batch: Batch,
  tensors: BatchTensors,
  k: number,
  vocabSize: number,
): Promise<Targets> {
  if (teacher.kind === "local") {
    const { parameters, folder } = teacher.model;
    return {
      hidden_WD: teacherHidden(parameters, folder.config, tensors),
      embedding: pickEmbedding(parameters),
      softCap: folder.config.finalLogitSoftcapping,
      dtype: headDtype(folder.config),
    };
  }
  const scores = await teacher.client.score(requestsOf(batch), k);
  const W = batch.targets.length;
  return k === vocabSize ? { logits_WV: denseLogits(W, scores, vocabSize) } : sparseScores(W, scores, k);
}

const teacherHidden = jitForward(
  "teacher",
  (parameters: Parameters, config: ModelConfig, batch: BatchTensors): tf.Tensor2D =>
    completionHidden(readParameters(parameters), config, batch).hidden_WD,
);

/** Which divergence: on the k likeliest tokens, where k is not the whole vocabulary. */
export type TargetLoss = DivergenceOptions & { k: number; addTail: boolean };

/** The student's divergence from what the teacher says of the same tokens. */
export const divergenceFrom =
  (targets: Targets, { k, ...options }: TargetLoss): TokenFunction =>
  (student_CV, chunkOf) => {
    if ("ids_Nk" in targets) {
      const { ids_Nk, logprobs_Nk, tail_N } = targets;
      const scores = { ids_Nk: chunkOf(ids_Nk), logprobs_Nk: chunkOf(logprobs_Nk), tail_N: chunkOf(tail_N) };
      return divergenceTopK(student_CV, topKOfServer(scores, options.temperature), options);
    }
    const teacher_CV = "logits_WV" in targets ? chunkOf(targets.logits_WV) : hiddenLogits(targets, chunkOf);
    if (k === student_CV.shape[1]) return divergence(student_CV, teacher_CV, options);
    return divergenceTopK(student_CV, topKOfLogits(teacher_CV, k, options.temperature), options);
  };

const hiddenLogits = ({ hidden_WD, embedding, ...head }: HiddenTargets, chunkOf: ChunkOf): tf.Tensor2D =>
  logitsOf({
    hidden_WD: chunkOf(hidden_WD),
    embedding_VD: matrixOf(readParameters(embedding), EMBEDDING),
    ...head,
  });

const pickEmbedding = (parameters: Parameters): Parameters =>
  Object.fromEntries(
    [EMBEDDING, ...partNames(EMBEDDING)].flatMap((name) => (parameters[name] ? [[name, parameters[name]]] : [])),
  );

/** One sequence a completion. */
const requestsOf = ({ sequences }: Batch): ScoreRequest[] =>
  sequences.flatMap(({ prompt, completions }) =>
    completions.map((completion) => ({ ids: [...prompt, ...completion], from: prompt.length })),
  );

/** The whole vocabulary: log-probabilities in the order of the ids. What fills up the batch stays 0. */
function denseLogits(W: number, scores: readonly TokenScores[], V: number): tf.Tensor2D {
  const logits = new Float32Array(W * V);
  let token = 0;
  for (const { ids, logprobs } of scores)
    for (let i = 0; i < ids.length; i++) {
      logits[token * V + ids[i]!] = logprobs[i]!;
      if ((i + 1) % V === 0) token++;
    }
  return tf.tensor2d(logits, [W, V]);
}

/** The k likeliest tokens. What fills up the batch holds the first k ids, all equally likely. */
function sparseScores(W: number, scores: readonly TokenScores[], k: number): Required<TopK> {
  const ids = Int32Array.from({ length: W * k }, (_, i) => i % k);
  const logprobs = new Float32Array(W * k).fill(-Math.log(k + 1));
  const tail = new Float32Array(W).fill(-Math.log(k + 1));
  let token = 0;
  for (const row of scores) {
    ids.set(row.ids, token * k);
    logprobs.set(row.logprobs, token * k);
    tail.set(row.tail, token);
    token += row.tail.length;
  }
  return { ids_Nk: tf.tensor2d(ids, [W, k]), logprobs_Nk: tf.tensor2d(logprobs, [W, k]), tail_N: tf.tensor1d(tail) };
}
