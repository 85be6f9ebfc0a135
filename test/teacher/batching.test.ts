import { describe, expect, test } from "vitest";
import { type Batch, type BatchingOptions, batchingScore } from "../../teacher/batching.js";
import type { ScoreRequest } from "../../teacher/teacher.js";
import { fakeRequests, fakeScores } from "./fake-model.js";

const defaults: BatchingOptions = { maxBatchTokens: 64, maxModelLen: 1024, fixedShapes: false };
const ofLength = (tokens: number): ScoreRequest => ({ ids: Array<number>(tokens).fill(1), from: 1 });
const noSignal = () => new AbortController().signal;

/** A queue whose batches are noted down and scored after a turn of the event loop. */
function recorded(options: Partial<BatchingOptions> = {}) {
  const batches: Batch[] = [];
  const score = batchingScore(
    async (batch) => {
      batches.push(batch);
      await new Promise((resolve) => setTimeout(resolve, 5));
      return batch.requests.map((request) => fakeScores(request, batch.k));
    },
    { ...defaults, ...options },
  );
  return { batches, score };
}
const shapes = (batches: Batch[]) => batches.map(({ requests, rows, length, k }) => [requests.length, rows, length, k]);

describe("batchingScore", () => {
  test("many requests of one sequence make few batches, and each gets its own scores", async () => {
    const { batches, score } = recorded();
    const requests = fakeRequests(13);
    const scores = await Promise.all(requests.map((request) => score([request], 3, noSignal())));
    expect(scores.flat()).toEqual(requests.map((request) => fakeScores(request, 3)));
    expect(shapes(batches)).toEqual([
      [4, 4, 16, 3],
      [4, 4, 16, 3],
      [4, 4, 16, 3],
      [1, 1, 16, 3],
    ]);
  });

  test("what waits longest decides length and k; others of the same kind join it", async () => {
    const { batches, score } = recorded();
    await Promise.all([
      score([ofLength(20), ofLength(3)], 2, noSignal()),
      score([ofLength(24)], 2, noSignal()),
      score([ofLength(24)], 5, noSignal()),
      score([ofLength(4)], 2, noSignal()),
    ]);
    expect(shapes(batches)).toEqual([
      [2, 2, 24, 2],
      [2, 2, 16, 2],
      [1, 1, 24, 5],
    ]);
  });

  test("a sequence above the limit goes alone", async () => {
    const { batches, score } = recorded();
    await score([ofLength(70), ofLength(70)], 1, noSignal());
    expect(shapes(batches)).toEqual([
      [1, 1, 96, 1],
      [1, 1, 96, 1],
    ]);
  });

  test("fixed shapes: a length always has the same number of rows", async () => {
    const { batches, score } = recorded({ fixedShapes: true });
    await score([ofLength(3)], 1, noSignal());
    await score([ofLength(3), ofLength(4), ofLength(5), ofLength(6), ofLength(7)], 1, noSignal());
    expect(shapes(batches)).toEqual([
      [1, 4, 16, 1],
      [4, 4, 16, 1],
      [1, 4, 16, 1],
    ]);
  });

  test("rows are fewer where k makes a batch large", async () => {
    const { batches, score } = recorded();
    await score([ofLength(3), ofLength(3), ofLength(3)], 400_000, noSignal()).catch(() => {});
    expect(batches.map(({ rows }) => rows)).toEqual([2, 1]);
  });

  test("a client that has gone is not scored, and the others are", async () => {
    const { batches, score } = recorded();
    const client = new AbortController();
    const running = score([ofLength(16)], 1, noSignal());
    const gone = score([ofLength(32)], 1, client.signal);
    const after = score([ofLength(24)], 1, noSignal());
    client.abort(new Error("gone"));
    await expect(gone).rejects.toThrow("gone");
    await Promise.all([running, after]);
    expect(batches.map(({ length }) => length)).toEqual([16, 24]);
  });

  test("a batch that fails fails its requests alone", async () => {
    const score = batchingScore(async ({ requests, k, length }) => {
      if (length === 24) throw new Error("out of memory");
      return requests.map((request) => fakeScores(request, k));
    }, defaults);
    const bad = score([ofLength(20)], 1, noSignal());
    const good = score([ofLength(5)], 1, noSignal());
    await expect(bad).rejects.toThrow("out of memory");
    expect(await good).toEqual([fakeScores(ofLength(5), 1)]);
  });
});
