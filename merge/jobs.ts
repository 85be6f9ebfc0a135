// The pieces of work that threads do, as plain data, and how one is done.
import { closeSync, openSync, writeSync } from "node:fs";
import { computePart, type KnownByMerge, measurePart } from "./evaluate.js";
import { openFiles } from "./files.js";
import { addSums } from "./method.js";
import type { PartRange } from "./parts.js";
import type { Plan } from "./plan.js";

/** Work on tensor number `tensor`: the sums of a pass over parts of it, or the bytes of one, stored at `position` of a shard. */
export type Job = { readonly tensor: number; readonly known: KnownByMerge } & (
  | { readonly kind: "measure"; readonly ranges: readonly PartRange[]; readonly merge: number; readonly pass: number }
  | { readonly kind: "store"; readonly range: PartRange; readonly shard: number; readonly position: number }
);

/** What every thread knows of a merge; `shards` are the files to write, which exist. */
export interface Work {
  readonly plan: Plan;
  readonly shards: readonly string[];
  /** Whether what is stored is measured as well. */
  readonly geometry: boolean;
}

/** Sums of a pass, or of the geometry. */
export type Sums = Float64Array | Uint32Array;

/** What a thread does jobs with. A `measure` gives its sums, a `store` the part's geometry, if it is wanted. */
export interface Bench {
  perform(job: Job): Sums | null;
  close(): void;
}

export function openBench({ plan, shards, geometry: isMeasured }: Work): Bench {
  const files = openFiles(plan.files);
  const outputs = shards.map((path) => openSync(path, "r+"));
  return {
    perform(job) {
      const { known } = job;
      const tensor = plan.tensors[job.tensor]!;
      if (job.kind === "measure") {
        const [first, ...others] = job.ranges;
        const measure = (range: PartRange) => measurePart(files, { tensor, range, known }, job.merge, job.pass);
        const sums = measure(first!).slice();
        for (const range of others) addSums(sums, measure(range));
        return sums;
      }
      const place = { tensor, range: job.range, known };
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
