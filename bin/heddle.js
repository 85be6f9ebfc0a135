#!/usr/bin/env node
// The command line's entry: plain JavaScript, so that node runs it from any directory before anything is built.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const cli = new URL("../dist/pipelines/cli.js", import.meta.url);
if (existsSync(cli)) {
  const { main } = await import(cli.href);
  process.exitCode = await main(process.argv.slice(2));
} else {
  console.error(`error: heddle is not built: run npm run setup in ${fileURLToPath(new URL("..", import.meta.url))}`);
  process.exitCode = 2;
}
