// The threads that share the jobs of a merge: this one, and workers beside it.
import { setImmediate } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { compiledModule } from "../config/paths.js";
import { type Job, openBench, type Work } from "./jobs.js";

/** What a worker is sent: first the work that its jobs are part of, then job after job. */
export type Request = { readonly work: Work } | { readonly id: number; readonly job: Job };

export interface Answer {
  readonly id: number;
  readonly sums: Float64Array | null;
  readonly error?: { name: string; message: string; stack?: string; path?: string; code?: string };
}

/** Jobs are begun in the order in which they are given, and done as threads become free. */
export interface Pool {
  run(job: Job): Promise<Float64Array | null>;
  /** Ends the workers. Jobs that have not begun are not done. */
  close(): Promise<void>;
}

/** In the bundle, workers have a file beside this one. */
const WORKER = import.meta.url.includes("/dist/bundle/")
  ? new URL("worker.js", import.meta.url)
  : compiledModule("merge/worker.js");

/** A worker has its next jobs at hand when it ends one: this thread hands out more only between its own. */
const JOBS_IN_HAND = 3;

/** Starts threads before there is work for them: they load their code while this one reads headers. */
export const startThreads = (count: number): Worker[] =>
  Array.from({ length: Math.max(0, count) }, () => new Worker(WORKER));

interface Waiting {
  readonly job: Job;
  readonly resolve: (sums: Float64Array | null) => void;
  readonly reject: (error: unknown) => void;
}

/** A pool of `count` threads: this one, which gives way to others between its jobs, and workers. */
export function openPool(work: Work, count: number, started: readonly Worker[] = []): Pool {
  const beside = Math.max(0, count - 1);
  const workers = [...started.slice(0, beside), ...startThreads(beside - started.length)];
  const queue = jobQueue();
  const threads = workers.map((worker) => openThread(worker, work, queue));
  const bench = openBench(work);
  let here: Promise<void> | null = null;
  async function workHere(): Promise<void> {
    await setImmediate();
    for (let waiting = queue.take(); waiting; waiting = queue.take()) {
      try {
        waiting.resolve(bench.perform(waiting.job));
      } catch (error) {
        waiting.reject(error);
      }
      await setImmediate();
    }
    here = null;
  }
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        queue.add({ job, resolve, reject });
        for (const { feed } of threads) feed();
        here ??= workHere();
      }),
    async close() {
      queue.clear();
      await Promise.all([here, ...workers.map((worker) => worker.terminate())]);
      bench.close();
    },
  };
}

/** Hands jobs to a worker. */
function openThread(worker: Worker, work: Work, queue: JobQueue): { feed(): void } {
  const inHand = new Map<number, Waiting>();
  let id = 0;
  const feed = () => {
    while (inHand.size < JOBS_IN_HAND) {
      const waiting = queue.take();
      if (!waiting) return;
      inHand.set(id, waiting);
      worker.postMessage({ id: id++, job: waiting.job } satisfies Request);
    }
  };
  worker.on("message", ({ id, sums, error }: Answer) => {
    const waiting = inHand.get(id);
    inHand.delete(id);
    if (error) waiting?.reject(Object.assign(new Error(error.message), error));
    else waiting?.resolve(sums);
    feed();
  });
  worker.on("error", (error) => {
    for (const { reject } of inHand.values()) reject(error);
    inHand.clear();
    for (let waiting = queue.take(); waiting; waiting = queue.take()) waiting.reject(error);
  });
  worker.postMessage({ work } satisfies Request);
  return { feed };
}

interface JobQueue {
  add(waiting: Waiting): void;
  take(): Waiting | undefined;
  clear(): void;
}

function jobQueue(): JobQueue {
  let jobs: Waiting[] = [];
  let next = 0;
  return {
    add: (waiting) => jobs.push(waiting),
    take() {
      const waiting = jobs[next];
      if (waiting) next++;
      // What was taken is let go now and then: shift() would move the whole queue each time.
      if (next > 1000) {
        jobs.splice(0, next);
        next = 0;
      }
      return waiting;
    },
    clear() {
      jobs = [];
      next = 0;
    },
  };
}
