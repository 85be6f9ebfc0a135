/**
 * Results of rows, written so that a command which was killed goes on where it was: beside the file that it will write,
 * OUT, stand OUT.partial, the results so far in the order in which they were computed, and OUT.partial.json, what they
 * depend on.
 */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { isDiskFull } from "../model/disk.js";
import { runBatches } from "./batch-steps.js";
import { UserError } from "./errors.js";
import type { TaskContext } from "./events.js";
import { openReplacement, removeLeftovers, writeFileAtomic } from "./files.js";
import type { Identity } from "./identity.js";
import { inOrder, type Placed } from "./length-order.js";
import { takeLock } from "./lock.js";

export type RowWork<T> = {
  /** What a progress display calls it. */
  readonly stage: string;
  /** The file to write, "-" for stdout (each row as soon as those before it are there), or null for none. */
  readonly out: string | null;
  readonly identity: Identity;
  /** All rows, in the order in which they are worked on, `size` at a time. */
  readonly rows: readonly Placed<T>[];
  readonly size: number;
  /** Lines that each row leads to. */
  readonly linesPerRow: number;
  /** The lines of each row of a batch, each with its newline, and how many tokens were dealt with. */
  run(batch: readonly Placed<T>[], index: number): Promise<{ results: readonly string[]; tokens: number }>;
  /** Is given the lines of every row, in the order of the rows, those of an earlier process included. */
  onResult?(result: string): Promise<void>;
};

/** Works on the rows that no earlier process has done, and writes the results of all. */
export async function writeRows<T>(work: RowWork<T>, context: TaskContext): Promise<void> {
  const { stage, out, rows, size, run, onResult = async () => {} } = work;
  if (out === null || out === "-") {
    const hand = inOrder(async (result: string) => {
      if (out !== null) context.emit({ type: "text", text: result });
      await onResult(result);
    });
    await runBatches(stage, rows, size, context, async (batch, index) => {
      const { results, tokens } = await run(batch, index);
      for (const [i, { place }] of batch.entries()) await hand(place, results[i]!);
      return tokens;
    });
    return;
  }
  const partial = await openPartial(out, work);
  try {
    const step = async (batch: readonly Placed<T>[], index: number) => {
      const { results, tokens } = await run(batch, index);
      partial.append(results);
      return tokens;
    };
    await runBatches(stage, rows, size, context, step, Math.ceil(partial.rows() / size));
    await partial.finish(onResult);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    const problem = `${out}: cannot be written, the disk is full: free some; the same command goes on where it stopped`;
    throw new UserError(problem, { cause: error });
  } finally {
    partial.close();
  }
}

type Partial = {
  /** How many there are. */
  rows(): number;
  append(results: readonly string[]): void;
  /** Writes OUT, in the order of the rows, and removes what stood beside it. */
  finish(onResult: (result: string) => Promise<void>): Promise<void>;
  close(): void;
};

async function openPartial<T>(out: string, { identity, rows, size, linesPerRow }: RowWork<T>): Promise<Partial> {
  const [path, about] = [`${out}.partial`, `${out}.partial.json`];
  const release = await takeLock(`${out}.lock`, { what: out, other: "--out" });
  removeLeftovers(out);
  const remove = () => {
    for (const name of [path, about]) rmSync(name, { force: true });
  };
  if (existsSync(path) && statSync(path).size > 0) {
    const why = differsFrom(about, identity);
    if (why !== null) {
      release();
      throw new UserError(`${path}: holds rows ${why}set another --out, or remove it to start over`);
    }
  } else remove();
  // A kill between the two leaves no rows, and they are then of these parameters.
  if (!existsSync(path)) writeFileAtomic(about, `${JSON.stringify(identity)}\n`);
  const file = openSync(path, "a+");
  const ends = rowEnds(file, linesPerRow);
  // A batch is computed as a whole, so that it has the shapes that it had.
  ends.length = ends.length >= rows.length ? rows.length : ends.length - (ends.length % size);
  ftruncateSync(file, ends.at(-1) ?? 0);

  const read = (row: number): string => {
    const begin = row === 0 ? 0 : ends[row - 1]!;
    const bytes = Buffer.alloc(ends[row]! - begin);
    for (let at = 0; at < bytes.length; ) at += readSync(file, bytes, at, bytes.length - at, begin + at);
    return bytes.toString("utf8");
  };
  return {
    rows: () => ends.length,
    append: (results) => {
      const bytes = Buffer.from(results.join(""));
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
      for (const result of results) ends.push((ends.at(-1) ?? 0) + Buffer.byteLength(result));
    },
    finish: async (onResult) => {
      const rowAt = new Uint32Array(rows.length);
      for (const [row, { place }] of rows.entries()) rowAt[place] = row;
      const whole = openReplacement(out);
      try {
        for (const row of rowAt) {
          const result = read(row);
          whole.write(result);
          await onResult(result);
        }
        whole.commit();
      } finally {
        whole.close();
      }
      remove();
    },
    close: () => {
      closeSync(file);
      if (ends.length === 0) remove();
      release();
    },
  };
}

/** What is to be said where a file does not tell of this identity, or null where it does. */
function differsFrom(about: string, identity: Identity): string | null {
  let was: Identity;
  try {
    was = JSON.parse(readFileSync(about, "utf8")) as Identity;
  } catch {
    return `of what ${about} should say and does not: `;
  }
  const keys = [...new Set([...Object.keys(was), ...Object.keys(identity)])];
  const other = keys.filter((key) => JSON.stringify(was[key]) !== JSON.stringify(identity[key]));
  return other.length === 0 ? null : `that were made with other ${other.join(", ")}: give what was given to go on, `;
}

const CHUNK = 2 ** 20;
const NEWLINE = 10;

/** Where each row that is whole ends, in bytes. */
function rowEnds(file: number, linesPerRow: number): number[] {
  const ends: number[] = [];
  const chunk = Buffer.alloc(CHUNK);
  let lines = 0;
  for (let begin = 0; ; ) {
    const length = readSync(file, chunk, 0, CHUNK, begin);
    if (length === 0) return ends;
    for (let at = chunk.indexOf(NEWLINE); at >= 0 && at < length; at = chunk.indexOf(NEWLINE, at + 1)) {
      lines++;
      if (lines % linesPerRow === 0) ends.push(begin + at + 1);
    }
    begin += length;
  }
}
