/**
 * How fast Gemma's tokenizers load and encode: node dist/bench/tokenizer.js [--python PYTHON], which needs Python's
 * tokenizers. The text is the repository's own documents and sources, by lines, as rows of data are.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadTokenizer } from "../model/tokenizer.js";

const { python } = parseArgs({ options: { python: { type: "string" } } }).values;
const files = ["README.md", ...readdirSync("pipelines").map((name) => join("pipelines", name))];
const text = files.flatMap((path) => (/\.(md|ts)$/.test(path) ? [readFileSync(path, "utf8")] : [])).join("\n");
const lines = Array<string>(8).fill(text).join("\n").split("\n");
const megabytes = Buffer.byteLength(lines.join("\n")) / 1e6;

const PEER = `
import json, sys, time
from tokenizers import Tokenizer
lines = json.load(sys.stdin)
begin = time.perf_counter()
tokenizer = Tokenizer.from_file(sys.argv[1])
loaded = time.perf_counter()
ids = [e.ids for e in tokenizer.encode_batch(lines, add_special_tokens=False)]
print(json.dumps([loaded - begin, time.perf_counter() - loaded]))
`;

for (const name of ["gemma2", "gemma3"]) {
  const dir = `node_modules/@lenml/tokenizer-${name}/models`;
  const begin = performance.now();
  const tokenizer = (await loadTokenizer(dir))!;
  const loaded = performance.now();
  await Promise.all(lines.map(tokenizer.encode));
  print(`${name}, heddle`, (loaded - begin) / 1000, (performance.now() - loaded) / 1000);
  if (python === undefined) continue;
  const input = JSON.stringify(lines);
  const args = ["-c", PEER, join(dir, "tokenizer.json")];
  const [load, encode] = JSON.parse(execFileSync(python, args, { input, encoding: "utf8" })) as [number, number];
  print(`${name}, Python's tokenizers`, load, encode);
}

function print(what: string, load: number, encode: number): void {
  console.log(`${what}: loaded in ${load.toFixed(2)} s, ${(megabytes / encode).toFixed(1)} MB/s`);
}
