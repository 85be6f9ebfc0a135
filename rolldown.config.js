// The CLI and the workers of a merge in a few files (`npm run build`), which bin/bundled.js loads.
import { defineConfig } from "rolldown";

const common = {
  platform: "node",
  // What is no JavaScript, and what few commands load.
  external: /^(tfjs-jit|tokenizers|vega|vega-lite|hono|@hono|mathjs|undici|@huggingface\/hub)(\/|$)/,
};

export default defineConfig([
  {
    ...common,
    input: "dist/pipelines/cli.js",
    output: {
      dir: "dist/bundle",
      format: "cjs",
      entryFileNames: "[name].cjs",
      // Names that stay: a program that runs while this is built again finds what it loads late.
      chunkFileNames: "[name].cjs",
    },
  },
  { ...common, input: "dist/merge/worker.js", output: { file: "dist/bundle/worker.js" } },
]);
