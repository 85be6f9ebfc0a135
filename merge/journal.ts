// What of an unfinished merge is stored: a file beside its shards, with a line for every group of tensors that is whole.
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { readTextIfAny } from "../model/json.js";
import type { Stored } from "./run-plan.js";

export type JournalLine = Stored;

/** Starts a journal. `identity` tells what is merged from what: a merge goes on only from a journal of the same. */
export function startJournal(path: string, identity: string): void {
  writeFileSync(path, `${JSON.stringify({ identity, boot: bootOf() })}\n`);
}

/** Adds lines for what has been written. */
export function appendJournal(path: string, lines: readonly JournalLine[]): void {
  appendFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

/**
 * The identity and lines of a journal; null where there is none that can be trusted. What a killed process has written is
 * there, but a machine that went down may have lost it. A line that a kill cut short does not count.
 */
export async function readJournal(path: string): Promise<{ identity: string; lines: JournalLine[] } | null> {
  const text = await readTextIfAny(path);
  const [first, ...rest] = (text ?? "").split("\n").slice(0, -1);
  if (first === undefined) return null;
  const { identity, boot } = JSON.parse(first) as { identity: string; boot: string };
  return boot === bootOf() ? { identity, lines: rest.map((line) => JSON.parse(line) as JournalLine) } : null;
}

/** What the kernel calls the time since it started. */
function bootOf(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}
