// A thread that does jobs in the order in which they come.
import { parentPort, workerData } from "node:worker_threads";
import { openBench, type Work } from "./jobs.js";
import type { Answer, Request } from "./pool.js";

const bench = openBench(workerData as Work);
parentPort!.on("message", ({ id, job }: Request) => {
  let answer: Answer;
  try {
    answer = { id, sums: bench.perform(job) };
  } catch (error) {
    // A copy of an error loses the fields of its class.
    const { name, message, stack, path, code } = error as NodeJS.ErrnoException;
    answer = { id, sums: null, error: { name, message, stack, path, code } };
  }
  parentPort!.postMessage(answer, answer.sums === null ? [] : [answer.sums.buffer as ArrayBuffer]);
});
