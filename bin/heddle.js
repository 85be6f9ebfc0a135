#!/usr/bin/env node
// The command line's entry: plain JavaScript, so that node runs it from any directory before anything is built. CommonJS,
// since node loads its loader of modules, which takes some ms, only where there are any.
const { statSync } = require("node:fs");
const { join } = require("node:path");
const { pathToFileURL } = require("node:url");

const compiled = (path) => join(__dirname, "../dist", path);
const timeOf = (path) => statSync(compiled(path), { throwIfNoEntry: false })?.mtimeMs ?? 0;

async function run(args) {
  // The bundle is the same in fewer files, which load faster. tsc alone does not make it anew.
  const isBundled = timeOf("bundle/cli.cjs") > timeOf("tsconfig.tsbuildinfo");
  if (isBundled || timeOf("pipelines/cli.js") > 0) {
    const { main } = isBundled
      ? require("./bundled.js").load("cli.cjs")
      : await import(pathToFileURL(compiled("pipelines/cli.js")).href);
    process.exitCode = await main(args);
  } else {
    console.error(`error: heddle is not built: run npm run setup in ${join(__dirname, "../")}`);
    process.exitCode = 2;
  }
}
void run(process.argv.slice(2));
