// What the processor can do, as Linux tells it.

import { readFileSync } from "node:fs";
import type { Device } from "./setup-wheels.js";

let flags: string | undefined;

/** The features of the processor as one line; empty where Linux lists none. Read once: the file grows with the cores. */
export function processorFlags(): string {
  flags ??= /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  return flags;
}

/**
 * Whether compiled products on this device are by our kernels (matmul.cc), which read a bfloat16 factor as it is. Elsewhere XLA
 * makes a float32 copy of one that is multiplied with a float32 factor.
 */
export const readsBfloat16On = (device: Device): boolean =>
  device === "cpu" && ["avx2", "fma"].every((flag) => processorFlags().split(" ").includes(flag));
