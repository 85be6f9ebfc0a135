// Stores the tensors of a plan in a folder: shards of known layout, written in any order, and a journal to go on from.
import { type FileHandle, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import { type CheckpointLayout, layOutCheckpoint } from "safetensors-ts";
import { ModelError } from "../model/errors.js";
import { appendJournal, type JournalLine, readJournal, startJournal } from "./journal.js";
import type { OutputTensor, Plan } from "./plan.js";
import { openPool } from "./pool.js";
import { runPlan } from "./run-plan.js";

export interface StoreOptions {
  /** Most bytes of tensors in one file. */
  readonly shardSize: number;
  /** Threads that compute, this one among them: 0 is the same as 1. */
  readonly workers: number;
  /** Threads that have been started for it already; they end with the merge. */
  readonly threads: readonly Worker[];
  /** Goes on from what an earlier process has stored of the same merge. */
  readonly resume: boolean;
  /** Whether the shards are on the disk in the end, not only on their way: before something is removed for them. */
  readonly isDurable: boolean;
  /** Whether the geometry of the task vectors is measured, see geometry.ts. */
  readonly geometry: boolean;
  /** What is merged from what, as text: only a merge of the same identity is gone on with. */
  readonly identity: string;
  /** Bytes of the output that are stored, of all; called at the start and after every part. */
  readonly onProgress: (stored: number, total: number) => void;
  readonly signal?: AbortSignal;
}

const INDEX_NAME = "model.safetensors.index.json";
const JOURNAL_NAME = "journal.jsonl";

/** The folder holds shards and index then. Gives the lines of the journal, in the plan's order. */
export async function storePlan(folder: string, plan: Plan, options: StoreOptions): Promise<JournalLine[]> {
  const { shardSize, workers, geometry, identity, signal } = options;
  const layout = layOutCheckpoint(plan.tensors, { shardSize });
  const journal = join(folder, JOURNAL_NAME);
  const earlier = options.resume ? await readJournal(journal) : null;
  if (earlier && earlier.identity !== identity) {
    throw new ModelError(
      folder,
      "is the unfinished merge of another recipe or other options, or its inputs have changed since: start anew, without --resume",
    );
  }
  const lines = earlier?.lines ?? [];
  const stored = new Set(lines.flatMap(({ tensors }) => tensors));
  const places = placesOf(plan, layout);
  const shards = layout.shards.map(({ name }) => join(folder, name));
  const handles: FileHandle[] = [];
  try {
    for (const [i, { header, bytes }] of layout.shards.entries()) {
      handles.push(await open(shards[i]!, earlier ? "r+" : "w+"));
      if (earlier) continue;
      await handles[i]!.write(header, 0, header.length, 0);
      await handles[i]!.truncate(bytes);
    }
    if (!earlier) startJournal(journal, identity);

    const total = places.reduce((sum, { bytes }) => sum + bytes, 0);
    let done = places.reduce((sum, { bytes }, i) => sum + (stored.has(i) ? bytes : 0), 0);
    options.onProgress(done, total);
    const entries = journaling(journal);
    const pool = openPool({ plan, shards, geometry }, workers, options.threads);
    try {
      await runPlan(plan, pool, workers, {
        isStored: (tensor) => stored.has(tensor),
        placeOf: (tensor) => places[tensor]!,
        onBytes: (bytes) => {
          done += bytes;
          options.onProgress(done, total);
        },
        onStored: (line) => {
          lines.push(line);
          entries.onStored(
            line,
            line.tensors.reduce((sum, tensor) => sum + places[tensor]!.bytes, 0),
          );
        },
        signal,
      });
    } finally {
      await pool.close();
      entries.append();
    }
    if (options.isDurable) for (const handle of handles) await handle.datasync();
  } finally {
    for (const handle of handles) await handle.close();
  }
  if (layout.index !== null) await writeFile(join(folder, INDEX_NAME), layout.index);
  await rm(journal);
  return lines.sort((a, b) => a.tensors[0]! - b.tensors[0]!);
}

/** Where each tensor of the plan goes, by its number. */
function placesOf(
  { tensors }: Plan,
  { shards }: CheckpointLayout<OutputTensor>,
): { shard: number; position: number; bytes: number }[] {
  const placed = shards.flatMap(({ tensors }, shard) =>
    tensors.map(({ tensor, ...place }) => ({ tensor, shard, ...place })),
  );
  const byTensor = new Map(placed.map((place) => [place.tensor, place]));
  return tensors.map((tensor) => byTensor.get(tensor)!);
}

/** So many bytes are stored between two entries into the journal. */
const JOURNAL_BYTES = 2 ** 24;

/** Brings what is stored into the journal, now and then. */
function journaling(journal: string) {
  let bytesSince = 0;
  let linesSince: JournalLine[] = [];
  const append = () => {
    appendJournal(journal, linesSince);
    bytesSince = 0;
    linesSince = [];
  };
  return {
    append,
    onStored(line: JournalLine, bytes: number): void {
      linesSince.push(line);
      bytesSince += bytes;
      if (bytesSince >= JOURNAL_BYTES) append();
    },
  };
}
