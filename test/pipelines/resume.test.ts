/** `generate`, `score` and `eval` killed at random instants: the same command goes on and ends with the same bytes. */
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { fixture } from "../model/golden.js";
import { heddle, rowsFile, startHeddle } from "./command.js";

const teacher = fixture("arithmetic/teacher");
const sums = Array.from({ length: 400 }, (_, i) => ({
  prompt: `${i}+${(7 * i) % 13}=`,
  answer: `${i + ((7 * i) % 13)}`,
}));
const KILLS = 3;

const sizeOf = (path: string) => (existsSync(path) ? statSync(path).size : 0);

test.each<[string, string[]]>([
  ["generate", ["--samples", "2", "--seed", "3", "--max-new-tokens", "8"]],
  ["score", ["--summary"]],
  ["eval", ["--temperature", "1", "--max-new-tokens", "8"]],
])("%s", async (command, flags) => {
  const { dir, out } = rowsFile(sums);
  const args = [command, "--model", teacher, "--data", "rows.jsonl", "--batch-size", "4", ...flags, "--out"];
  const alone = await heddle(dir, ...args, "alone.jsonl");
  expect(alone.code).toBe(0);

  const partial = `${out}.partial`;
  for (let kill = 0; kill < KILLS; kill++) {
    const before = sizeOf(partial);
    const child = startHeddle(dir, ...args, "out.jsonl");
    const ended = once(child, "exit");
    while (child.exitCode === null && sizeOf(partial) <= before) await sleep(5);
    await sleep(30 * Math.random());
    // Its child goes by itself, and the next start waits for it.
    child.kill("SIGKILL");
    await ended;
  }
  const last = await heddle(dir, ...args, "out.jsonl");
  expect(last.code).toBe(0);
  expect(last.stderr).toMatch(new RegExp(`^${command}: goes on after step \\d+ of 100\n`));
  expect(last.stdout).toBe(alone.stdout);
  expect(readFileSync(out).equals(readFileSync(join(dir, "alone.jsonl")))).toBe(true);
  expect(readdirSync(dir).sort()).toEqual(["alone.jsonl", "out.jsonl", "rows.jsonl"]);
});

test("another model does not go on, and what was computed stays", async () => {
  const { dir, out } = rowsFile(sums.slice(0, 64));
  const args = ["--data", "rows.jsonl", "--out", "out.jsonl", "--batch-size", "1"];
  const child = startHeddle(dir, "score", "--model", teacher, ...args);
  const ended = once(child, "exit");
  while (sizeOf(`${out}.partial`) === 0) await sleep(5);
  child.kill("SIGKILL");
  await ended;
  const before = readFileSync(`${out}.partial`);
  expect(await heddle(dir, "score", "--model", fixture("arithmetic/student"), ...args)).toEqual({
    code: 2,
    stdout: "",
    stderr: expect.stringContaining(
      "error: out.jsonl.partial: holds rows that were made with other model: give what was given to go on, " +
        "set another --out, or remove it to start over\n",
    ),
  });
  // The process that computes may have written another row before it saw that it is alone.
  expect(readFileSync(`${out}.partial`).subarray(0, before.length).equals(before)).toBe(true);
});
