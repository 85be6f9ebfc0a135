/** Many small requests, few calls of the model: sequences that wait are scored together in a small set of shapes. */
import { paddedLength } from "../model/batch.js";
import type { Score } from "./server.js";
import type { ScoreRequest, TokenScores } from "./teacher.js";

/** Sequences for one call of the model, to be padded to [rows, length]: the only shapes it has to be compiled for. */
export type Batch = { requests: ScoreRequest[]; k: number; rows: number; length: number };

export type BatchingOptions = {
  /** Largest rows * length. One sequence that is longer goes alone. */
  maxBatchTokens: number;
  /** Longest padded sequence. */
  maxModelLen: number;
  /**
   * Every sequence of a padded length is scored in one number of rows, full or not: its scores do not depend on what
   * else waited. Otherwise rows follow the load, and scores differ in their last bits (1e-4).
   */
  fixedShapes: boolean;
};

type Waiting = {
  request: ScoreRequest;
  k: number;
  length: number;
  signal: AbortSignal;
  resolve: (scores: TokenScores) => void;
  reject: (error: unknown) => void;
};

/** Scores kept in memory for one batch: ids and log-probabilities are 8 bytes an entry. */
const ENTRIES_PER_BATCH = 16_000_000;

/**
 * A queue in front of `run`, which scores one batch at a time. First come, first served: the longest-waiting sequence
 * decides length and k of the next batch, and others of the same kind join it. Sequences whose client has gone are dropped.
 */
export function batchingScore(run: (batch: Batch) => Promise<TokenScores[]>, options: BatchingOptions): Score {
  let waiting: Waiting[] = [];
  let isRunning = false;

  async function runAll(): Promise<void> {
    isRunning = true;
    while (waiting.length > 0) {
      // Requests that have arrived by now get a chance to join.
      await new Promise(setImmediate);
      waiting = waiting.filter(({ signal }) => !signal.aborted);
      const taken = takeBatch(waiting, options);
      if (taken.length === 0) continue;
      waiting = waiting.filter((one) => !taken.includes(one));
      await runBatch(taken);
    }
    isRunning = false;
  }

  async function runBatch(taken: Waiting[]): Promise<void> {
    const { k, length } = taken[0]!;
    const fullRows = rowsOf(length, k, options);
    const rows = options.fixedShapes ? fullRows : Math.min(fullRows, nextPowerOfTwo(taken.length));
    try {
      const scores = await run({ requests: taken.map(({ request }) => request), k, rows, length });
      for (const [i, { resolve }] of taken.entries()) resolve(scores[i]!);
    } catch (error) {
      for (const { reject } of taken) reject(error);
    }
  }

  return (requests, k, signal) =>
    new Promise<TokenScores[]>((resolveAll, rejectAll) => {
      signal.throwIfAborted();
      signal.addEventListener("abort", () => rejectAll(signal.reason), { once: true });
      const scores = requests.map(
        (request) =>
          new Promise<TokenScores>((resolve, reject) => {
            const length = paddedLength(request.ids.length, options.maxModelLen);
            waiting.push({ request, k, length, signal, resolve, reject });
          }),
      );
      Promise.all(scores).then(resolveAll, rejectAll);
      if (!isRunning) void runAll();
    });
}

function takeBatch(waiting: Waiting[], options: BatchingOptions): Waiting[] {
  const first = waiting[0];
  if (!first) return [];
  const { length, k } = first;
  return waiting.filter((one) => one.length === length && one.k === k).slice(0, rowsOf(length, k, options));
}

/** The rows of a full batch: a power of two. */
function rowsOf(length: number, k: number, { maxBatchTokens }: BatchingOptions): number {
  const rows = Math.min(maxBatchTokens / length, ENTRIES_PER_BATCH / (length * Math.max(k, 1)));
  return rows < 2 ? 1 : 2 ** Math.floor(Math.log2(rows));
}

const nextPowerOfTwo = (n: number) => 2 ** Math.ceil(Math.log2(n));
