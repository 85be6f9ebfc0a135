/** A scorer for the server's tests, compiled to dist: the fake model, and ways to misbehave by files in the model folder. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Batch } from "../../teacher/batching.js";
import { fakeScores } from "../teacher/fake-model.js";

export async function open({ model }: { model: string }) {
  const isThere = (name: string) => existsSync(join(model, name));
  if (isThere("broken")) throw new Error(`${model}: model.safetensors is broken`);
  return async ({ requests, k }: Batch) => {
    if (isThere("crash-once")) {
      rmSync(join(model, "crash-once"));
      process.exit(3);
    }
    // As a call into TensorFlow does: nothing else happens in this process.
    if (isThere("block")) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
    return requests.map((request) => fakeScores(request, k));
  };
}
