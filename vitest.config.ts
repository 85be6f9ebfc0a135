import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Tests read the TypeScript sources; what starts a process of its own (the CLI, worker threads) runs from dist. */
export default defineConfig({
  resolve: {
    alias: {
      "safetensors-ts": source("safetensors-ts/src/index.ts"),
      "tfjs-jit/compilations": source("tfjs-jit/src/compilations.ts"),
      "tfjs-jit/setup": source("tfjs-jit/src/setup.ts"),
      "tfjs-jit": source("tfjs-jit/src/index.ts"),
    },
  },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // A folder that is missing may look like a model of the hub: no test asks another hub than its own.
    env: { HF_HUB_OFFLINE: "1", NO_PROXY: "127.0.0.1,localhost" },
  },
});
