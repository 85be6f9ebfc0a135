/** What the teacher says of a batch, as tensors for the loss. W as in batch.ts: the tokens of the completions. */

import { jit, tf } from "tfjs-jit";
import type { Batch } from "../model/batch.js";
import type { Gemma2Config } from "../model/config.js";
import type { ModelFolder } from "../model/load.js";
import { disposeModel, type LoadedModel, loadModel } from "../model/loaded.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { type BatchTensors, completionLogits } from "../model/scoring.js";
import { httpTeacher } from "../teacher/http.js";
import type { RemoteTeacher, ScoreRequest, TokenScores } from "../teacher/teacher.js";
import { tokenizerSha256 } from "../teacher/tokenizer-hash.js";
import type { TopK } from "./top-k.js";

/** A model in this process, or one behind an address: the only difference between them is here. */
export type Teacher =
  | { readonly kind: "local"; readonly model: LoadedModel }
  | { readonly kind: "remote"; readonly client: RemoteTeacher };

/** Opens a model folder or an http(s) address as a teacher of this student; the rest of a run does not see which it is. */
export async function openTeacher(
  where: string,
  student: ModelFolder,
  onRetry: (message: string) => void,
): Promise<Teacher> {
  if (!/^https?:/.test(where)) return { kind: "local", model: await loadModel(where) };
  const identity = { vocabSize: student.config.vocabSize, tokenizerSha256: await tokenizerSha256(student.dir) };
  return { kind: "remote", client: await httpTeacher(where, { student: identity, onRetry }) };
}

export async function closeTeacher(teacher: Teacher): Promise<void> {
  if (teacher.kind === "local") disposeModel(teacher.model);
  else await teacher.client.close();
}

/** Logits of the whole vocabulary (up to a constant a row), or the k likeliest tokens at temperature 1. */
export type Targets = { readonly logits_WV: tf.Tensor2D } | Required<TopK>;

/** The teacher's distributions; k is the tokens asked of a remote one. The caller disposes the tensors. */
export async function targetsOf(
  teacher: Teacher,
  batch: Batch,
  tensors: BatchTensors,
  k: number,
  vocabSize: number,
): Promise<Targets> {
  if (teacher.kind === "local") {
    const { parameters, folder } = teacher.model;
    return { logits_WV: teacherLogits(parameters, folder.config, tensors) };
  }
  const scores = await teacher.client.score(requestsOf(batch), k);
  const W = batch.targets.length;
  return k === vocabSize ? { logits_WV: denseLogits(W, scores, vocabSize) } : sparseScores(W, scores, k);
}

const teacherLogits = jit(function teacherLogits(parameters: Parameters, config: Gemma2Config, batch: BatchTensors) {
  return completionLogits(readParameters(parameters), config, batch);
});

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
