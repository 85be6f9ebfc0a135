/** A teacher behind an address, without the address: it scores each request by itself, in float64 from a model's logits. */
import { tf } from "tfjs-jit";
import { vi } from "vitest";
import type { Teacher } from "../../distill/targets.js";
import type { LoadedModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import type { RemoteTeacher, ScoreRequest, TokenScores } from "../../teacher/teacher.js";
import { completionLogprobsAlone } from "../model/alone.js";

/** The teacher, what it was asked, and how often it was closed. */
export function remoteTeacher(model: LoadedModel) {
  const asked: { requests: readonly ScoreRequest[]; k: number }[] = [];
  const close = vi.fn(() => Promise.resolve());
  const client: RemoteTeacher = {
    modelName: "teacher",
    vocabSize: model.folder.config.vocabSize,
    close,
    score: (requests, k) => {
      asked.push({ requests, k });
      return Promise.resolve(requests.map((request) => scoresOf(model, request, k)));
    },
  };
  return { teacher: { kind: "remote", client } satisfies Teacher, asked, close };
}

function scoresOf({ parameters, folder }: LoadedModel, { ids, from }: ScoreRequest, k: number): TokenScores {
  const rows = tf.tidy(() =>
    completionLogprobsAlone(readParameters(parameters), folder.config, ids.slice(0, from), ids.slice(from)),
  );
  const orders = rows.map((row) => row.map((_, id) => id).sort((a, b) => row[b]! - row[a]!));
  const massOutside = (row: number[], order: number[]) =>
    order.slice(k).reduce((sum, id) => sum + Math.exp(row[id]!), 0);
  return {
    k,
    ids: Int32Array.from(orders.flatMap((order) => order.slice(0, k))),
    logprobs: Float32Array.from(rows.flatMap((row, n) => orders[n]!.slice(0, k).map((id) => row[id]!))),
    actual: Float32Array.from(rows.map((row, n) => row[ids[from + n]!]!)),
    tail: Float32Array.from(rows.map((row, n) => Math.log(massOutside(row, orders[n]!)))),
  };
}
