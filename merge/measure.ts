// The first pass of a merge: what each group of tensors looks like, and with which weights its task vectors are summed.
import type { CheckpointTensor } from "safetensors-ts";
import { type Granularity, groupTensors } from "./groups.js";
import { type Chunk, checkFinite, type Inputs, readChunks } from "./inputs.js";
import { slerpWeights } from "./slerp.js";
import { addProducts, noProducts, type Products, weightedNorm } from "./task-vectors.js";

/** The geometry of one group of tensors. Norms and angles are of task vectors (weights minus init). */
export interface GroupStatistics {
  readonly group: string;
  /** Number of tensors in it. */
  readonly tensors: number;
  /** Length of each run's task vector. */
  readonly norms: readonly number[];
  /** Radians, from 0 to pi, between the SLERP of the first m runs and run m + 1 (m from 1); null where one is zero. */
  readonly angles: readonly (number | null)[];
  /** Cosines of `angles`. */
  readonly cosines: readonly (number | null)[];
  /** Length of the merged task vector, before eta. */
  readonly mergedNorm: number;
}

/** How a method weighs the task vectors of a group. */
export type Weigh = (products: Products) => readonly number[];

export interface Measure {
  /** Weights of the group that the tensor is in. */
  weightsFor(name: string): Promise<readonly number[]>;
  /** Of all groups, in the order of their first tensors. */
  statistics(): Promise<GroupStatistics[]>;
}

/**
 * Measures a group when the first of its tensors is asked for, tensor by tensor: by the second pass, which comes next,
 * its bytes are still in the system's cache.
 */
export function measureGroups(
  inputs: Inputs,
  tensors: readonly CheckpointTensor[],
  granularity: Granularity,
  weigh: Weigh,
): Measure {
  const groups = groupTensors(
    tensors.map(({ name }) => name),
    granularity,
  );
  const groupOf = new Map([...groups].flatMap(([group, names]) => names.map((name) => [name, group])));
  const measured = new Map<string, ReturnType<typeof measureGroup>>();
  const measure = (group: string) => {
    const known = measured.get(group) ?? measureGroup(inputs, group, groups.get(group)!, weigh);
    measured.set(group, known);
    return known;
  };
  return {
    weightsFor: async (name) => (await measure(groupOf.get(name)!)).weights,
    statistics: () => Promise.all([...groups.keys()].map(async (group) => (await measure(group)).statistics)),
  };
}

async function measureGroup(
  inputs: Inputs,
  group: string,
  names: readonly string[],
  weigh: Weigh,
): Promise<{ weights: readonly number[]; statistics: GroupStatistics }> {
  const products = noProducts(inputs.runs.length);
  for (const name of names) {
    for await (const chunk of readChunks(inputs, name)) {
      addProducts(products, chunk.init, chunk.runs);
      // The squared length of a task vector is finite exactly where its run and the init are.
      if (!products.every((row, m) => Number.isFinite(row[m]))) reportNonFinite(inputs, name, chunk);
    }
  }
  const weights = weigh(products);
  const { angles } = slerpWeights(products);
  const statistics = {
    group,
    tensors: names.length,
    norms: products.map((row, m) => Math.sqrt(row[m]!)),
    angles,
    cosines: angles.map((angle) => (angle === null ? null : Math.cos(angle))),
    mergedNorm: weightedNorm(products, weights),
  };
  return { weights, statistics };
}

function reportNonFinite({ init, runs }: Inputs, name: string, chunk: Chunk): void {
  checkFinite(chunk.init, init.path, name, chunk.start);
  for (const [m, run] of runs.entries()) checkFinite(chunk.runs[m]!, run.path, name, chunk.start);
}
