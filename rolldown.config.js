// The CLI and the workers of a merge in a few files, which load in half the time of dist/'s many (`npm run build`).
import { defineConfig } from "rolldown";

export default defineConfig({
  input: ["dist/pipelines/cli.js", "dist/merge/worker.js"],
  platform: "node",
  // What is no JavaScript, and what few commands load.
  external: /^(tfjs-jit|tokenizers|vega|vega-lite|hono|@hono|mathjs|undici|@huggingface\/hub)(\/|$)/,
  // Names that stay: a program that runs while this is built again finds what it loads late.
  output: { dir: "dist/bundle", chunkFileNames: "[name].js" },
});
