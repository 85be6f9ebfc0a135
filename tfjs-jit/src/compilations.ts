// Who wants to know hears of each program that is compiled: that is where the first minute of a run goes.

import { programsOnDisk } from "./compile-cache.js";

export type Compilation = {
  /** Of the jitted function. */
  readonly name: string;
  /** Of the program's first call: tracing, compiling and running it. */
  readonly seconds: number;
  /** Whether an earlier process had compiled it: no program was added to the cache on disk. */
  readonly isFromDisk: boolean;
};

const listeners = new Set<(compilation: Compilation) => void>();

/** Calls `listener` after the first call of each program that jit makes in this process. Gives what ends that. */
export function onCompile(listener: (compilation: Compilation) => void): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** Runs the first call of a program. */
export function announced<R>(name: string, usesXla: boolean, firstCall: () => R): R {
  const before = programsOnDisk();
  const start = performance.now();
  const result = firstCall();
  const seconds = (performance.now() - start) / 1000;
  const isFromDisk = usesXla && before !== null && programsOnDisk() === before;
  for (const listener of listeners) listener({ name, seconds, isFromDisk });
  return result;
}
