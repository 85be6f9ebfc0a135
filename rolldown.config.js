// The CLI and the workers of a merge in a few files (`npm run build`), which bin/bundled.js loads.
import { defineConfig } from "rolldown";

const common = {
  platform: "node",
  // What is no JavaScript, and what few commands load.
  external: /^(tfjs-jit|tokenizers|vega|vega-lite|hono|@hono|mathjs|undici|@huggingface\/hub)(\/|$)/,
};

/** What is imported late and stays outside: a script that V8 has kept the code of cannot import by itself (bin/bundled.js). */
const importPackage = {
  name: "import-package",
  renderChunk: (code) => ({ code: code.replaceAll(/\bimport\(/g, "importPackage("), map: null }),
};

export default defineConfig([
  {
    ...common,
    input: "dist/pipelines/cli.js",
    plugins: [importPackage],
    output: {
      dir: "dist/bundle",
      format: "cjs",
      entryFileNames: "[name].cjs",
      // Names that stay: a program that runs while this is built again finds what it loads late.
      chunkFileNames: "[name].cjs",
    },
  },
  { ...common, input: "dist/merge/worker.js", output: { file: "dist/bundle/worker.cjs", format: "cjs" } },
]);
