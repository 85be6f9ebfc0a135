// The threads that share the jobs of a merge: this one, and workers beside it.
import { setImmediate } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { compiledModule } from "../config/paths.js";
import { type Claims, claim, MAX_CLAIMS, newClaims, offer } from "./claims.js";
import { type Job, openBench, type Work } from "./jobs.js";

/** What a worker is sent: first the work that its jobs are part of, then job after job. */
export type Request = { readonly work: Work; readonly claims: Claims } | { readonly id: number; readonly job: Job };

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
  ? new URL("worker.cjs", import.meta.url)
  : compiledModule("merge/worker.js");

/**
 * A worker has its next jobs at hand when it ends one, of so many elements: this thread hands out more only between its own.
 * Those that a worker has not begun are taken back where this thread has nothing else to do.
 */
const ELEMENTS_IN_HAND = 3 * 2 ** 21;
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
  let isClosed = false;
  const next = () => {
    let waiting = queue.take();
    for (let t = 0; !waiting && !isClosed && t < threads.length; t++) waiting = threads[t]!.takeBack();
    return waiting;
  };
  const bench = openBench(work);
  let here: Promise<void> | null = null;
  async function workHere(): Promise<void> {
    await setImmediate();
    for (let waiting = next(); waiting; waiting = next()) {
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
      isClosed = true;
      queue.clear();
      await Promise.all([here, ...workers.map((worker) => worker.terminate())]);
      bench.close();
    },
  };
}

interface Thread {
  /** Hands out jobs that wait. */
  feed(): void;
  /** The last job in hand, if it has not begun. */
  takeBack(): Waiting | undefined;
}

function openThread(worker: Worker, work: Work, queue: JobQueue): Thread {
  const claims = newClaims();
  const inHand = new Map<number, Waiting>();
  let elements = 0;
  let nextId = 0;
  const letGo = (id: number): Waiting | undefined => {
    const waiting = inHand.get(id);
    inHand.delete(id);
    elements -= waiting ? elementsOf(waiting.job) : 0;
    return waiting;
  };
  const oldest = () => inHand.keys().next().value ?? nextId;
  const feed = () => {
    while (elements < ELEMENTS_IN_HAND && nextId - oldest() < MAX_CLAIMS) {
      const waiting = queue.take();
      if (!waiting) return;
      const id = nextId++;
      inHand.set(id, waiting);
      elements += elementsOf(waiting.job);
      offer(claims, id);
      worker.postMessage({ id, job: waiting.job } satisfies Request);
    }
  };
  worker.on("message", ({ id, sums, error }: Answer) => {
    const waiting = letGo(id);
    feed();
    if (error) waiting?.reject(Object.assign(new Error(error.message), error));
    else waiting?.resolve(sums);
  });
  worker.on("error", (error) => {
    for (const { reject } of inHand.values()) reject(error);
    inHand.clear();
    for (let waiting = queue.take(); waiting; waiting = queue.take()) waiting.reject(error);
  });
  worker.postMessage({ work, claims } satisfies Request);
  return {
    feed,
    takeBack() {
      const last = [...inHand.keys()].at(-1);
      return last !== undefined && claim(claims, last) ? letGo(last) : undefined;
    },
  };
}

const elementsOf = ({ ranges }: Job): number => ranges.reduce((sum, { length }) => sum + length, 0);

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
