/** Scores of a teacher in this process, against values that transformers computed and against model/scoring.ts. */
import { jit, tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { listSequences, sizesOf } from "../../model/batch.js";
import { type ModelConfig, readModelConfig } from "../../model/config.js";
import { createParameters, disposeParameters, type Parameters, readParameters } from "../../model/parameters.js";
import { batchTensors, completionLogits } from "../../model/scoring.js";
import { loadWeights } from "../../model/weights.js";
import { scoreBatch } from "../../teacher/in-process.js";
import type { ScoreRequest, TokenScores } from "../../teacher/teacher.js";
import { fixture, readGolden } from "../model/golden.js";

const dir = fixture("models/gemma2-tiny");
let config: ModelConfig;
let weights: Record<string, tf.Tensor>;
let parameters: Parameters;
let V: number;
/** The sequences of the golden file without their padding, and for each the logits at each token. */
let sequences: { ids: number[]; logits_TV: number[][] }[];

beforeAll(async () => {
  config = await readModelConfig(dir);
  V = config.vocabSize;
  weights = await loadWeights(dir, config);
  parameters = withEmbedding((embedding) => embedding);
  const golden = await readGolden(dir);
  const [ids, attention, logits] = [golden.ids!, golden.attention_mask!, golden.logits!].map((t) => t.arraySync());
  sequences = (ids as number[][]).map((row, b) => {
    const slots = row.map((_, t) => t).filter((t) => (attention as number[][])[b]![t] === 1);
    return { ids: slots.map((t) => row[t]!), logits_TV: slots.map((t) => (logits as number[][][])[b]![t]!) };
  });
});
afterAll(() => disposeParameters(parameters));

/** The model with another embedding matrix. */
function withEmbedding(change: (embedding: tf.Tensor) => tf.Tensor): Parameters {
  const name = "model.embed_tokens.weight";
  const copies = tf.tidy(() =>
    Object.fromEntries(Object.entries(weights).map(([key, w]) => [key, (key === name ? change(w) : w).clone()])),
  );
  return createParameters(copies);
}

/** In float64. */
function logSoftmax(logits: readonly number[]): number[] {
  const max = Math.max(...logits);
  const lnSum = max + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0));
  return logits.map((x) => x - lnSum);
}

/** What the scores must be, by the log-probabilities [T, V] at each token. */
function expected({ ids, from }: ScoreRequest, logprobs_TV: number[][], k: number): TokenScores {
  const rows = logprobs_TV.slice(from - 1, -1);
  const orders = rows.map((row) => row.map((_, id) => id).sort((a, b) => row[b]! - row[a]!));
  const outside = (row: number[], order: number[]) =>
    Math.log(order.slice(k).reduce((sum, id) => sum + Math.exp(row[id]!), 0));
  return {
    k,
    ids: Int32Array.from(orders.flatMap((order) => order.slice(0, k))),
    logprobs: Float32Array.from(rows.flatMap((row, i) => orders[i]!.slice(0, k).map((id) => row[id]!))),
    actual: Float32Array.from(rows.map((row, i) => row[ids[from + i]!]!)),
    tail: Float32Array.from(rows.map((row, i) => outside(row, orders[i]!))),
  };
}

/** Checks shapes, then that values differ by less than `limit`. Tokens as likely as their neighbour may change places. */
function expectClose(got: TokenScores, want: TokenScores, limit: number): void {
  expect(got.k).toBe(want.k);
  expect(got.ids.length).toBe(want.ids.length);
  for (const key of ["actual", "logprobs", "tail"] as const) {
    expect(got[key].length, key).toBe(want[key].length);
    const differences = Array.from(got[key], (x, i) => (x === want[key][i] ? 0 : Math.abs(x - want[key][i]!)));
    expect(Math.max(0, ...differences), key).toBeLessThan(limit);
  }
  for (let i = 0; i < got.ids.length; i++) {
    if (got.ids[i] === want.ids[i]) continue;
    const gaps = [want.logprobs[i - 1]! - want.logprobs[i]!, want.logprobs[i]! - want.logprobs[i + 1]!];
    expect(Math.min(...gaps.filter((gap) => !Number.isNaN(gap))), `token ${i}`).toBeLessThan(2 * limit);
  }
}

describe.each([0, 1, 5, 383, 384])("k = %i of 384 tokens", (k) => {
  test("the scores are those of transformers, whatever the padding", () => {
    const requests = sequences.map(({ ids }, row) => ({ ids, from: 1 + row }));
    const scores = scoreBatch(parameters, config, { requests, k, rows: requests.length + 2, length: 32 });
    expect(scores.length).toBe(requests.length);
    scores.forEach((score, row) => {
      expectClose(score, expected(requests[row]!, sequences[row]!.logits_TV.map(logSoftmax), k), 4e-4);
    });
  });
});

test("the scores are those of the logits that training uses", () => {
  const prompts = [[2, 5, 9], [2, 7, 30, 31, 32, 33, 34], [2]];
  const completions = [[8, 8, 1], [40, 41, 42, 43, 44], [100]];
  const sequences = prompts.map((prompt, row) => ({ prompt, completions: [completions[row]!] }));
  const batch = listSequences(sequences, sizesOf(prompts, { rows: 3, samples: 1, maxNewTokens: 5 }));
  const logits_WV = tf.tidy(
    () =>
      jit((given: Parameters, tensors: ReturnType<typeof batchTensors>) =>
        completionLogits(readParameters(given), config, tensors),
      )(parameters, batchTensors(batch)).arraySync() as number[][],
  );
  const requests = prompts.map((prompt, row) => ({ ids: [...prompt, ...completions[row]!], from: prompt.length }));
  const scores = scoreBatch(parameters, config, { requests, k: 7, rows: 3, length: 16 });
  let first = 0;
  scores.forEach((score, row) => {
    const { ids, from } = requests[row]!;
    const logprobs = logits_WV.slice(first, first + ids.length - from).map(logSoftmax);
    first += ids.length - from;
    const want = expected({ ids: ids.slice(from - 1), from: 1 }, [...logprobs, []], 7);
    expectClose(score, want, 1e-5);
  });
});

test("a tail is as exact as the rest where almost nothing is left", () => {
  // Every row of the embedding is one large number, above 0 for token 3 alone: after token 3 its logit is at the soft
  // cap, 30, and all others are at -30. The likeliest token leaves 383 e^-60.
  const certain = withEmbedding(() => {
    const values_V1 = tf.tensor1d(Array.from({ length: V }, (_, id) => (id === 3 ? 1e4 : -1e4))).reshape([V, 1]);
    return values_V1.tile([1, config.hiddenSize]);
  });
  const [score] = scoreBatch(certain, config, { requests: [{ ids: [3, 3], from: 1 }], k: 1, rows: 1, length: 16 });
  disposeParameters(certain);
  expect(score!.ids[0]).toBe(3);
  expect(score!.logprobs[0]).toBe(0);
  expect(score!.tail[0]).toBeCloseTo(Math.log(383) - 60, 4);
});

test("tokens that are equally likely are counted once, among the k or in the tail", () => {
  const tied = withEmbedding((embedding) => {
    const twin = embedding.slice([50, 0], [1, -1]).tile([100, 1]);
    return tf.concat([embedding.slice([0, 0], [50, -1]), twin, embedding.slice([150, 0], [-1, -1])]);
  });
  for (const k of [1, 20, 100, 150, 200, 250]) {
    const requests = sequences.map(({ ids }) => ({ ids, from: 1 }));
    const scores = scoreBatch(tied, config, { requests, k, rows: requests.length, length: 24 });
    for (const { logprobs, ids, tail } of scores) {
      tail.forEach((lnTail, i) => {
        const mass = logprobs.subarray(i * k, (i + 1) * k).reduce((sum, x) => sum + Math.exp(x), 0);
        expect(Math.abs(mass + Math.exp(lnTail) - 1)).toBeLessThan(1e-5);
        expect(new Set(ids.subarray(i * k, (i + 1) * k)).size).toBe(k);
      });
    }
  }
  disposeParameters(tied);
});

test("the scores are the same where the head sees 7 positions at a time", () => {
  const requests = sequences.map(({ ids }) => ({ ids, from: 3 }));
  const batch = { requests, k: 4, rows: requests.length, length: 24 };
  const whole = scoreBatch(parameters, config, batch);
  scoreBatch(parameters, config, batch, 7 * V).forEach((score, row) => {
    expectClose(score, whole[row]!, 1e-5);
  });
});

test("a request that asks for nothing gets nothing, and no tensor is left behind", () => {
  const before = tf.memory().numTensors;
  const requests = [
    { ids: [2, 5], from: 2 },
    { ids: [2, 5, 6], from: 2 },
  ];
  const [none, one] = scoreBatch(parameters, config, { requests, k: 2, rows: 2, length: 16 });
  expect(none).toEqual({
    k: 2,
    ids: new Int32Array(),
    logprobs: new Float32Array(),
    actual: new Float32Array(),
    tail: new Float32Array(),
  });
  expect(one!.ids.length).toBe(2);
  expect(tf.memory().numTensors).toBe(before);
});

test("HEDDLE_JIT=0 gives the same scores", () => {
  const requests = sequences.map(({ ids }) => ({ ids, from: 2 }));
  const batch = { requests, k: 5, rows: requests.length, length: 24 };
  const compiled = scoreBatch(parameters, config, batch);
  process.env.HEDDLE_JIT = "0";
  try {
    scoreBatch(parameters, config, batch).forEach((score, row) => {
      expectClose(score, compiled[row]!, 1e-4);
    });
  } finally {
    delete process.env.HEDDLE_JIT;
  }
});
