// The pieces of work that threads do, as plain data, and how one is done.
import { closeSync, openSync, writeSync } from "node:fs";
import { computePart, type KnownByMerge, measurePart } from "./evaluate.js";
import { openFiles } from "./files.js";
import type { PartRange } from "./parts.js";
import type { Plan } from "./plan.js";

/** One part of tensor number `tensor`: the sums of a pass over it, or its bytes, stored at `position` of a shard. */
export type Job = { readonly tensor: number; readonly range: PartRange; readonly known: KnownByMerge } & (
  | { readonly kind: "measure"; readonly merge: number; readonly pass: number }
  | { readonly kind: "store"; readonly shard: number; readonly position: number }
);

/** What every thread knows of a merge; `shards` are the files to write, which exist. */
export interface Work {
  readonly plan: Plan;
  readonly shards: readonly string[];
  /** Whether what is stored is measured as well. */
  readonly geometry: boolean;
}

/** What a thread does jobs with. A `measure` gives its sums, a `store` the part's geometry, if it is wanted. */
export interface Bench {
  perform(job: Job): Float64Array | null;
  close(): void;
}

export function openBench({ plan, shards, geometry: isMeasured }: Work): Bench {
  const files = openFiles(plan.files);
  const outputs = shards.map((path) => openSync(path, "r+"));
  return {
    perform(job) {
      const place = { tensor: plan.tensors[job.tensor]!, range: job.range, known: job.known };
      if (job.kind === "measure") return measurePart(files, place, job.merge, job.pass);
      const { bytes, geometry } = computePart(files, place, isMeasured);
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(outputs[job.shard]!, bytes, done, bytes.length - done, job.position + done);
      }
      return geometry;
    },
    close() {
      files.close();
      for (const descriptor of outputs) closeSync(descriptor);
    },
  };
}
