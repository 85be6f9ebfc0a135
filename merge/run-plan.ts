// Runs a plan: passes over groups of tensors, then the tensors themselves, parts of them in parallel. The sums of a pass
// are added in the order of tensors and parts, so that the result has the same bits whatever the number of threads.
import { BITS } from "safetensors-ts";
import { batchesToMeasure, batchesToStore } from "./batches.js";
import { findMerge, type KnownByMerge } from "./evaluate.js";
import { GRANULARITIES, type Granularity, groupOf } from "./groups.js";
import type { Job } from "./jobs.js";
import { addSums, type Known, type Settings } from "./method.js";
import { METHODS } from "./methods.js";
import type { MergeSource, Plan, Source } from "./plan.js";
import type { Pool } from "./pool.js";

/** Where the bytes of an output tensor go. */
export interface StorePlace {
  readonly shard: number;
  readonly position: number;
}

export interface RunHooks {
  /** Output tensors (by number) that are stored already. */
  readonly isStored: (tensor: number) => boolean;
  readonly placeOf: (tensor: number) => StorePlace;
  /** Bytes of the output stored since the last call. */
  readonly onBytes: (bytes: number) => void;
  /** A set of tensors is stored. */
  readonly onStored: (stored: Stored) => void;
  readonly signal: AbortSignal | undefined;
}

/** Tensors (by number in the plan) that are stored, and the geometry of each, where it was asked for and is one. */
export interface Stored {
  readonly tensors: readonly number[];
  readonly geometry: readonly (readonly number[] | null)[];
}

/** Stores every tensor of the plan that is not stored yet. */
export async function runPlan(plan: Plan, pool: Pool, threads: number, hooks: RunHooks): Promise<void> {
  const units = unitsOf(plan).filter((unit) => !unit.every(hooks.isStored));
  const failed = new AbortController();
  const next = units.values();
  // A unit's last parts keep some threads only: the units after it are under way then.
  const lanes = Array.from({ length: 2 * Math.max(1, threads) }, async () => {
    for (const unit of next) {
      failed.signal.throwIfAborted();
      await runUnit(plan, unit, pool, hooks, failed.signal);
    }
  });
  const stop = (reason: unknown) => {
    failed.abort(reason);
    throw reason;
  };
  const onAbort = () => failed.abort(hooks.signal?.reason);
  hooks.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    hooks.signal?.throwIfAborted();
    await Promise.all(lanes.map((lane) => lane.catch(stop)));
  } finally {
    hooks.signal?.removeEventListener("abort", onAbort);
    await Promise.allSettled(lanes);
  }
}

/** Sets of tensors none of whose passes looks at a tensor of another set, in the order of their first tensors. */
function unitsOf(plan: Plan): number[][] {
  const units = new Map<string, number[]>();
  for (const [i, { name, source }] of plan.tensors.entries()) {
    const key = groupOf(name, coarsest(source));
    const unit = units.get(key);
    if (unit) unit.push(i);
    else units.set(key, [i]);
  }
  return [...units.values()];
}

function coarsest(source: Source): Granularity {
  const found = mergesOf(source).map((node) => GRANULARITIES.indexOf(granularityOf(node)));
  return GRANULARITIES[Math.max(0, ...found)]!;
}

const granularityOf = ({ method, settings }: MergeSource) => METHODS[method].granularity?.(settings) ?? "tensor";

/** The merges within a source, those that others are made of first. */
function mergesOf(source: Source | null): MergeSource[] {
  if (source === null) return [];
  if (source.kind === "lora") return mergesOf(source.of);
  if (source.kind !== "merge") return [];
  return [...[source.base, ...source.models].flatMap(mergesOf), source];
}

async function runUnit(
  plan: Plan,
  unit: readonly number[],
  pool: Pool,
  hooks: RunHooks,
  signal: AbortSignal,
): Promise<void> {
  const known = new Map<number, Record<number, Known>>(unit.map((tensor) => [tensor, {}]));
  for (const merge of mergesIn(plan, unit)) {
    const done = groupsIn(plan, unit, merge).map(async (tensors) => {
      const result = await conclude(plan, tensors, merge, known, pool, signal);
      for (const tensor of tensors) known.get(tensor)![merge] = result;
    });
    await Promise.all(done);
  }
  const stored = unit.map((tensor) => storeTensor(plan, tensor, known.get(tensor)!, pool, hooks, signal));
  const geometry = (await Promise.all(stored)).map((sums) => sums && [...sums]);
  hooks.onStored({ tensors: unit, geometry });
}

function storeTensor(
  plan: Plan,
  tensor: number,
  known: KnownByMerge,
  pool: Pool,
  hooks: RunHooks,
  signal: AbortSignal,
): Promise<Float64Array | null> {
  const { shard, position } = hooks.placeOf(tensor);
  const output = plan.tensors[tensor]!;
  const size = BITS[output.dtype] / 8;
  const batches = batchesToStore(output).map(async (ranges) => {
    const sums = await pool.run({ kind: "store", tensor, ranges, known, shard, position });
    hooks.onBytes(ranges.reduce((elements, { length }) => elements + length, 0) * size);
    return sums;
  });
  return addUp(batches, signal);
}

/** Numbers of the merges that the tensors are made by, those that others are made of first. */
function mergesIn(plan: Plan, unit: readonly number[]): number[] {
  const numbers = unit.flatMap((tensor) => mergesOf(plan.tensors[tensor]!.source).map(({ merge }) => merge));
  return [...new Set(numbers)].sort((a, b) => b - a);
}

/** The tensors of a unit that a merge has a part in, by what its passes sum over. */
function groupsIn(plan: Plan, unit: readonly number[], merge: number): number[][] {
  const groups = new Map<string, number[]>();
  for (const tensor of unit) {
    const { name, source } = plan.tensors[tensor]!;
    const node = findMerge(source, merge);
    if (!node) continue;
    const group = groupOf(name, granularityOf(node));
    groups.set(group, [...(groups.get(group) ?? []), tensor]);
  }
  return [...groups.values()];
}

/** What the passes of a merge conclude of a group of tensors. */
async function conclude(
  plan: Plan,
  tensors: readonly number[],
  merge: number,
  knownOf: ReadonlyMap<number, KnownByMerge>,
  pool: Pool,
  signal: AbortSignal,
): Promise<Known> {
  const { method, settings } = findMerge(plan.tensors[tensors[0]!]!.source, merge)!;
  const known: (readonly number[])[] = [];
  for (const [pass, { isNeeded, conclude }] of METHODS[method].passes.entries()) {
    if (isNeeded && !isNeeded(known, settings)) {
      known.push([]);
      continue;
    }
    const batches = tensors.flatMap((tensor) =>
      batchesToMeasure(plan.tensors[tensor]!).map((ranges) => ({ tensor, ranges })),
    );
    const isAll = batches.length === 1;
    const jobs = batches.map(({ tensor, ranges }): Job => {
      const withThis = { ...knownOf.get(tensor), [merge]: [...known] };
      return { kind: "measure", tensor, ranges, known: withThis, merge, pass, isAll };
    });
    const sums = await addUp(
      jobs.map((job) => pool.run(job)),
      signal,
    );
    if (sums === null || isAll) known.push([...(sums ?? [])]);
    else known.push(conclude(sums, settings as Settings, known));
  }
  return known;
}

/** The sum of arrays in their order, each let go once it is added; null where there are none. */
async function addUp(results: Promise<Float64Array | null>[], signal: AbortSignal): Promise<Float64Array | null> {
  let total: Float64Array | null = null;
  for (const result of results) result.catch(() => {});
  for (const [i, result] of results.entries()) {
    const sums = await result;
    signal.throwIfAborted();
    results[i] = Promise.resolve(null);
    if (sums === null) continue;
    total ??= new Float64Array(sums.length);
    addSums(total, sums);
  }
  return total;
}
