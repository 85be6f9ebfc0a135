#!/usr/bin/env node
// The command line's entry: plain JavaScript, so that node runs it from any directory before anything is built.
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const compiled = (path) => new URL(`../dist/${path}`, import.meta.url);
const timeOf = (path) => statSync(compiled(path), { throwIfNoEntry: false })?.mtimeMs ?? 0;

// The bundle is the same in fewer files, which load faster. tsc alone does not make it anew.
const isBundled = timeOf("bundle/cli.cjs") > timeOf("tsconfig.tsbuildinfo");
if (isBundled || timeOf("pipelines/cli.js") > 0) {
  const { main } = isBundled
    ? (await import("./bundled.js")).load("cli.cjs")
    : await import(compiled("pipelines/cli.js").href);
  process.exitCode = await main(process.argv.slice(2));
} else {
  console.error(`error: heddle is not built: run npm run setup in ${fileURLToPath(new URL("..", import.meta.url))}`);
  process.exitCode = 2;
}
