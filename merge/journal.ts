// What of an unfinished merge is on disk: a file beside its shards, with a line for every group of tensors that is whole.
import { appendFileSync, writeFileSync } from "node:fs";
import { readTextIfAny } from "../model/json.js";
import type { Stored } from "./run-plan.js";

export type JournalLine = Stored;

/** Starts a journal. `identity` tells what is merged from what: a merge goes on only from a journal of the same. */
export function startJournal(path: string, identity: string): void {
  writeFileSync(path, `${JSON.stringify({ identity })}\n`);
}

/** Adds lines; the shards must be on disk by then. */
export function appendJournal(path: string, lines: readonly JournalLine[]): void {
  appendFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

/** The identity and lines of a journal; null where there is none. A line that a kill cut short is not there. */
export async function readJournal(path: string): Promise<{ identity: string; lines: JournalLine[] } | null> {
  const text = await readTextIfAny(path);
  const [first, ...rest] = (text ?? "").split("\n").slice(0, -1);
  if (first === undefined) return null;
  const { identity } = JSON.parse(first) as { identity: string };
  return { identity, lines: rest.map((line) => JSON.parse(line) as JournalLine) };
}
