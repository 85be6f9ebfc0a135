// A thread that does jobs in the order in which they come, all of one piece of work, which comes first.
import { parentPort } from "node:worker_threads";
import { type Claims, claim } from "./claims.js";
import { type Bench, openBench } from "./jobs.js";
import type { Answer, Request } from "./pool.js";

let bench: Bench;
let claims: Claims;
parentPort!.on("message", (request: Request) => {
  if ("work" in request) {
    bench = openBench(request.work);
    claims = request.claims;
    return;
  }
  const { id, job } = request;
  if (!claim(claims, id)) return;
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
