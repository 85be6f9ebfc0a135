// The pieces of work that threads do, as plain data, and how one is done.
import { closeSync, openSync, writeSync } from "node:fs";
import { BITS } from "safetensors-ts";
import { computePart, findMerge, type KnownByMerge, measurePart } from "./evaluate.js";
import { openFiles } from "./files.js";
import { addCounts, addSums } from "./method.js";
import { METHODS } from "./methods.js";
import type { PartRange } from "./parts.js";
import type { Plan } from "./plan.js";
import { heldCounts, holdCounts } from "./simd/arena.js";

/** Work on parts of tensor number `tensor`: the sums of a pass over them, or their bytes in the tensor at `position` of a shard. */
export type Job = { readonly tensor: number; readonly ranges: readonly PartRange[]; readonly known: KnownByMerge } & (
  | {
      readonly kind: "measure";
      readonly merge: number;
      readonly pass: number;
      /** Whether the ranges are all that the pass looks at: then what it concludes is given in the place of the sums. */
      readonly isAll: boolean;
    }
  | { readonly kind: "store"; readonly shard: number; readonly position: number }
);

/** What every thread knows of a merge; `shards` are the files to write, which exist. */
export interface Work {
  readonly plan: Plan;
  readonly shards: readonly string[];
  /** Whether what is stored is measured as well. */
  readonly geometry: boolean;
}

/** Sums of a pass, or of the geometry. */
type Sums = Float64Array | Uint32Array;

/** What a thread does jobs with. A `measure` gives its sums, a `store` the geometry of its parts, if it is wanted. */
export interface Bench {
  perform(job: Job): Float64Array | null;
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
        const { ranges, merge, pass } = job;
        const { method, settings } = findMerge(tensor.source, merge)!;
        const { counts, conclude } = METHODS[method].passes[pass]!;
        const count = counts?.(settings, known[merge] ?? []) ?? 0;
        const sums = accumulate(ranges, count, (range) => measurePart(files, { tensor, range, known }, merge, pass));
        if (!job.isAll) return sums.slice();
        return Float64Array.from(conclude(sums, settings, known[merge] ?? []));
      }
      const size = BITS[tensor.dtype] / 8;
      let total: Float64Array | null = null;
      for (const range of job.ranges) {
        const { bytes, geometry } = computePart(files, { tensor, range, known }, isMeasured);
        write(outputs[job.shard]!, bytes, job.position + range.start * size);
        if (geometry === null) continue;
        total ??= new Float64Array(geometry.length);
        addSums(total, geometry);
      }
      return total;
    },
    close() {
      files.close();
      for (const descriptor of outputs) closeSync(descriptor);
    },
  };
}

function write(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
  }
}

/** Sums that were given last, kept for the next: new ones for every tensor would be hundreds of megabytes until collected. */
let kept = new Float64Array(0);

/** The sum over the ranges, valid until the next call. `count`: how many counts there are, 0 where they are other sums. */
function accumulate(ranges: readonly PartRange[], count: number, measure: (range: PartRange) => Sums): Float64Array {
  holdCounts(count);
  let isFirst = true;
  for (const range of ranges) {
    const sums = measure(range);
    if (kept.length !== sums.length) kept = new Float64Array(sums.length);
    if (isFirst) kept.fill(0);
    isFirst = false;
    if (sums instanceof Float64Array) addSums(kept, sums);
    else addCounts(heldCounts(count), sums);
  }
  if (count > 0) kept.set(heldCounts(count));
  return kept;
}
