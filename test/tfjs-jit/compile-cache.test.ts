/** Compiled programs on disk, as separate processes see them. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deleteOldest } from "../../tfjs-jit/src/compile-cache.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "heddle-programs-"));
});
afterAll(() => rm(folder, { recursive: true }));

type Run = { value: number; compilations: { name: string; seconds: number; isFromDisk: boolean }[] };

/** Sum of tanh(x x) for x of ones [2, 2]: 4 tanh 2, in a process of its own. */
async function run(variables: NodeJS.ProcessEnv = { HEDDLE_COMPILE_CACHE: folder }): Promise<Run> {
  const script = `
    import { jit, onCompile, tf } from "tfjs-jit";
    const compilations = [];
    onCompile((compilation) => compilations.push(compilation));
    const f = jit(function twice(x) { return tf.matMul(x, x).tanh().sum(); });
    console.log(JSON.stringify({ value: f(tf.ones([2, 2])).dataSync()[0], compilations }));`;
  const env = { ...process.env, ...variables };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], {
    env,
  });
  expect(stderr).toBe("");
  return JSON.parse(stdout) as Run;
}
const runProgram = async () => (await run()).value;
const entries = async () =>
  Promise.all((await readdir(folder)).map(async (name) => [name, (await stat(join(folder, name))).mtimeMs] as const));

describe("the compile cache", () => {
  test("keeps a program, and another process reads it", async () => {
    expect(await runProgram()).toBeCloseTo(4 * Math.tanh(2), 5);
    const written = await entries();
    expect(written.length).toBe(1);
    expect(await runProgram()).toBeCloseTo(4 * Math.tanh(2), 5);
    expect(await entries()).toEqual(written);
  });

  test("tells who listens whether a program was in it", async () => {
    expect((await run()).compilations).toEqual([{ name: "twice", seconds: expect.any(Number), isFromDisk: true }]);
    for (const [name] of await entries()) await rm(join(folder, name));
    expect((await run()).compilations).toEqual([{ name: "twice", seconds: expect.any(Number), isFromDisk: false }]);
  });

  test.each([0, 500])("an entry cut to %i bytes is compiled again", async (bytes) => {
    const [[name]] = (await entries()) as [readonly [string, number]];
    const whole = (await stat(join(folder, name))).size;
    await truncate(join(folder, name), bytes);
    expect(await runProgram()).toBeCloseTo(4 * Math.tanh(2), 5);
    const sizes = await Promise.all(
      (await readdir(folder)).map(async (entry) => (await stat(join(folder, entry))).size),
    );
    expect(Math.max(...sizes)).toBeGreaterThan(0.9 * whole);
  });
});

test("folders that nothing has used for 60 days are deleted; a use marks its own, which no age deletes", async () => {
  const cache = await mkdtemp(join(tmpdir(), "heddle-cache-"));
  const now = Date.now() / 1000;
  const age = (name: string, days: number) => utimes(join(cache, name), now - days * 86400, now - days * 86400);
  const variables = { HEDDLE_CACHE: cache, HEDDLE_COMPILE_CACHE: "" };
  await run(variables);
  const [own] = (await readdir(cache)).filter((name) => name.startsWith("programs-"));
  for (const [name, days] of [
    ["programs-old", 61],
    ["programs-recent", 59],
    ["tensorflow-old", 100],
  ] as const) {
    await mkdir(join(cache, name));
    await writeFile(join(cache, name, "entry"), "");
    await age(name, days);
  }
  await age(own!, 100);
  expect((await run(variables)).compilations).toMatchObject([{ isFromDisk: true }]);
  expect(new Set(await readdir(cache))).toEqual(new Set([own, "programs-recent", "tensorflow-old"]));
  expect((await stat(join(cache, own!))).mtimeMs / 1000).toBeGreaterThan(now - 1);
  await rm(cache, { recursive: true });
});

test("deleteOldest keeps what was written last", async () => {
  const dir = await mkdtemp(join(tmpdir(), "heddle-oldest-"));
  for (const [i, name] of ["b", "c", "a"].entries()) {
    await writeFile(join(dir, name), new Uint8Array(10));
    await utimes(join(dir, name), 100 + i, 100 + i);
  }
  deleteOldest(dir, 20);
  expect((await readdir(dir)).sort()).toEqual(["a", "c"]);
  deleteOldest(dir, 19);
  expect(await readdir(dir)).toEqual(["a"]);
  await rm(dir, { recursive: true });
});
