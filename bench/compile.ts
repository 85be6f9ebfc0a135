/**
 * The first training step with layers in loops, which compiles its programs, and the next ones: of 4 layers and of 26, in
 * turn, each in a process of its own with an empty compile cache. compile.js [ROUNDS]
 */
import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { median, print } from "./time.js";

type Compiling = { readonly compile_s: number; readonly processor_s: number };

const [rounds = 5] = process.argv.slice(2).map(Number);
const LAYERS = [4, 26] as const;
const own = fileURLToPath(new URL("compile-step.js", import.meta.url));
const seen = LAYERS.map((): Compiling[] => []);
for (let round = 0; round < rounds; round++) {
  for (const [i, layers] of LAYERS.entries()) {
    const cache = await mkdtemp(join(tmpdir(), "heddle-bench-compile-"));
    try {
      const env = { ...process.env, HEDDLE_COMPILE_CACHE: cache };
      const line = execFileSync(process.execPath, [own, `${layers}`], { env, encoding: "utf8" });
      process.stdout.write(line);
      seen[i]!.push(JSON.parse(line) as Compiling);
    } finally {
      await rm(cache, { recursive: true });
    }
  }
}
const [few, many] = (["compile_s", "processor_s"] as const)
  .map((key) => seen.map((times) => median(times.map((time) => time[key]))))
  .map(([a, b]) => b! / a!);
print({ name: "26 layers to 4", compile_ratio: few, processor_ratio: many });
