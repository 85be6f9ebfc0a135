// Threads that share the jobs of a merge, or none: then this one does them.
import { setImmediate } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { compiledModule } from "../config/paths.js";
import { type Job, openBench, type Work } from "./jobs.js";

/** What a thread is sent: first the work that its jobs are part of, then job after job. */
export type Request = { readonly work: Work } | { readonly id: number; readonly job: Job };

export interface Answer {
  readonly id: number;
  readonly sums: Float64Array | null;
  readonly error?: { name: string; message: string; stack?: string; path?: string; code?: string };
}

/** Jobs are begun in the order in which they are given, and done as threads become free. */
export interface Pool {
  run(job: Job): Promise<Float64Array | null>;
  close(): Promise<void>;
}

/** A thread has its next job at hand when it ends one. */
const JOBS_IN_HAND = 2;

/** Starts threads before there is work for them: they load their code while this one reads headers. */
export const startThreads = (count: number): Worker[] =>
  Array.from({ length: count }, () => new Worker(compiledModule("merge/worker.js")));

/** `workers` 0 does the jobs in this thread, giving way to others between them. */
export function openPool(work: Work, workers: number, started: readonly Worker[] = []): Pool {
  if (workers === 0) return poolHere(work);
  return poolOf(work, [...started.slice(0, workers), ...startThreads(Math.max(0, workers - started.length))]);
}

function poolHere(work: Work): Pool {
  const bench = openBench(work);
  let last: Promise<unknown> = Promise.resolve();
  return {
    run(job) {
      const done = last.then(() => setImmediate()).then(() => bench.perform(job));
      last = done.catch(() => {});
      return done;
    },
    async close() {
      await last;
      bench.close();
    },
  };
}

interface Waiting {
  readonly job: Job;
  readonly resolve: (sums: Float64Array | null) => void;
  readonly reject: (error: unknown) => void;
}

function poolOf(work: Work, workers: readonly Worker[]): Pool {
  const queue: Waiting[] = [];
  let next = 0;
  const threads = workers.map((worker) => {
    worker.postMessage({ work } satisfies Request);
    const inHand = new Map<number, Waiting>();
    const fail = (error: unknown) => {
      for (const { reject } of [...inHand.values(), ...queue.splice(next)]) reject(error);
      inHand.clear();
    };
    worker.on("message", ({ id, sums, error }: Answer) => {
      const waiting = inHand.get(id);
      inHand.delete(id);
      if (error) waiting?.reject(Object.assign(new Error(error.message), error));
      else waiting?.resolve(sums);
      feed();
    });
    worker.on("error", fail);
    return { worker, inHand };
  });
  let id = 0;
  function feed(): void {
    for (let free = true; free; ) {
      free = false;
      for (const { worker, inHand } of threads) {
        if (inHand.size >= JOBS_IN_HAND || next >= queue.length) continue;
        const waiting = queue[next++]!;
        inHand.set(id, waiting);
        worker.postMessage({ id: id++, job: waiting.job } satisfies Request);
        free = true;
      }
    }
    // What was handed out is let go now and then: shift() would move the whole queue each time.
    if (next > 1000) {
      queue.splice(0, next);
      next = 0;
    }
  }
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        queue.push({ job, resolve, reject });
        feed();
      }),
    close: async () => {
      await Promise.all(threads.map(({ worker }) => worker.terminate()));
    },
  };
}
