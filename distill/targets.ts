/** What the teacher says of a batch, as tensors for the loss. N counts all completion slots of the batch in a row. */

import { jit, tf } from "tfjs-jit";
import type { Batch } from "../model/batch.js";
import type { Gemma2Config } from "../model/config.js";
import type { ModelFolder } from "../model/load.js";
import { disposeModel, type LoadedModel, loadModel } from "../model/loaded.js";
import { type Parameters, readParameters } from "../model/parameters.js";
import { type BatchTensors, completionLogits } from "../model/scoring.js";
import { httpTeacher } from "../teacher/http.js";
import type { RemoteTeacher, TokenScores } from "../teacher/teacher.js";
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
export type Targets = { readonly logits_NV: tf.Tensor2D } | Required<TopK>;

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
    return { logits_NV: teacherLogits(parameters, folder.config, tensors) };
  }
  const scores = await teacher.client.score(requestsOf(batch), k);
  return k === vocabSize ? { logits_NV: denseLogits(batch, scores, vocabSize) } : sparseScores(batch, scores, k);
}

const teacherLogits = jit(function teacherLogits(parameters: Parameters, config: Gemma2Config, batch: BatchTensors) {
  return completionLogits(readParameters(parameters), config, batch);
});

/** One sequence a row, its padding left out. */
function requestsOf({ rows, promptSlots: P, completionSlots: N, ids, attention }: Batch) {
  return Array.from({ length: rows }, (_, row) => {
    const begin = row * (P + N);
    const slots = Array.from({ length: P + N }, (_, t) => t).filter((t) => attention[begin + t] === 1);
    return { ids: slots.map((t) => ids[begin + t]!), from: slots.filter((t) => t < P).length };
  });
}

/** The whole vocabulary: log-probabilities in the order of the ids. Slots that are not counted stay 0. */
function denseLogits(batch: Batch, scores: readonly TokenScores[], V: number): tf.Tensor2D {
  const logits = new Float32Array(batch.rows * batch.completionSlots * V);
  scores.forEach(({ ids, logprobs }, row) => {
    for (let i = 0; i < ids.length; i++) {
      const slot = row * batch.completionSlots + Math.floor(i / V);
      logits[slot * V + ids[i]!] = logprobs[i]!;
    }
  });
  return tf.tensor2d(logits, [batch.rows * batch.completionSlots, V]);
}

/** The k likeliest tokens. Slots that are not counted hold the first k ids, all equally likely. */
function sparseScores(batch: Batch, scores: readonly TokenScores[], k: number): Required<TopK> {
  const N = batch.rows * batch.completionSlots;
  const ids = Int32Array.from({ length: N * k }, (_, i) => i % k);
  const logprobs = new Float32Array(N * k).fill(-Math.log(k + 1));
  const tail = new Float32Array(N).fill(-Math.log(k + 1));
  scores.forEach((row, i) => {
    const first = i * batch.completionSlots;
    ids.set(row.ids, first * k);
    logprobs.set(row.logprobs, first * k);
    tail.set(row.tail, first);
  });
  return { ids_Nk: tf.tensor2d(ids, [N, k]), logprobs_Nk: tf.tensor2d(logprobs, [N, k]), tail_N: tf.tensor1d(tail) };
}
