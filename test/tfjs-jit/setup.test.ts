// What set-up does on a machine that has everything it needs, whatever state the cache is in.

import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { cacheFolder, formatBytes } from "../../tfjs-jit/src/setup-cache.js";
import { setupFacts } from "../../tfjs-jit/src/setup-facts.js";
import { checkBinding, ensureLink, readChoice, readLink, writeChoice } from "../../tfjs-jit/src/setup-link.js";
import { runSetup } from "../../tfjs-jit/src/setup-steps.js";
import { tensorflowFolderName } from "../../tfjs-jit/src/setup-tensorflow.js";
import { buildFor } from "../../tfjs-jit/src/setup-wheels.js";
import { fakeMachine, leaveDownload, wheelFiles } from "./fake-machine.js";

describe("runSetup", () => {
  test("downloads, unpacks what is kept, compiles, links, and says so in one line", async () => {
    const { plan, lines, calls } = fakeMachine();
    const result = await runSetup(plan);

    expect(result.did).toEqual(["downloaded", "compiled", "linked"]);
    expect(calls()).toEqual(["download", "compile"]);
    expect(lines).toEqual([
      `downloading TensorFlow 1.0 (CPU), 1 MB, to ${plan.cache}`,
      "unpacking TensorFlow 1.0 (CPU)",
      "compiling the binding (about 10 s)",
      expect.stringMatching(/^TensorFlow 1\.0 \(CPU\) ready in \d+\.\d s \(downloaded, compiled, linked\)$/),
    ]);
    expect(result.tensorflow).toBe(join(plan.cache, "tensorflow-1.0-cpu-linux-x64"));
    const library = "tensorflow/libtensorflow_cc.so.2";
    expect(readFileSync(join(result.tensorflow, library), "utf8")).toBe(wheelFiles[library]);
    expect(existsSync(join(result.tensorflow, "tensorflow/python"))).toBe(false);
    expect(readlinkSync(plan.link)).toBe(result.binding);
    expect(readLink(plan.link)).toMatchObject({ version: "1.0", device: "cpu", tensorflow: result.tensorflow });
    expect(readdirSync(join(plan.cache, "downloads"))).toEqual([]);
    expect(readdirSync(join(plan.cache, "tmp"))).toEqual([]);
  });

  test("does nothing the second time, in less than 150 ms", async () => {
    const { plan, lines, calls } = fakeMachine();
    await runSetup(plan);
    lines.length = 0;
    const times: number[] = [];
    for (let i = 0; i < 3; i++) {
      const started = performance.now();
      expect((await runSetup(plan)).did).toEqual([]);
      times.push(performance.now() - started);
    }
    expect(calls()).toEqual(["download", "compile"]);
    expect(lines[0]).toBe("TensorFlow 1.0 (CPU) is ready");
    expect(Math.min(...times)).toBeLessThan(150);
  });

  test("only links again after npm ci", async () => {
    const { plan } = fakeMachine();
    await runSetup(plan);
    rmSync(join(plan.link, "../../.."), { recursive: true });
    expect((await runSetup(plan)).did).toEqual(["linked"]);
  });

  test("compiles again when a source or the compiler changes, and keeps what it compiled before", async () => {
    const { plan } = fakeMachine();
    const first = await runSetup(plan);
    writeFileSync(join(plan.sources.own, "binding.cc"), "// changed\n");
    const second = await runSetup(plan);
    expect(second.did).toEqual(["compiled", "linked"]);
    expect(second.binding).not.toBe(first.binding);
    const newer = { ...plan, env: { ...plan.env, FAKE_CXX_VERSION: "2" } };
    expect((await runSetup(newer)).did).toEqual(["compiled", "linked"]);
    expect((await runSetup(plan)).did).toEqual(["linked"]);
  });

  test("needs no compiler once the binding is in the cache", async () => {
    const { plan, folder } = fakeMachine();
    const { binding } = await runSetup(plan);
    rmSync(join(folder, "bin", "c++"));
    expect(await runSetup(plan)).toMatchObject({ binding, did: [] });
  });

  test("goes on with a wheel that an earlier set-up left, and replaces one that is cut", async () => {
    const { plan, calls } = fakeMachine();
    leaveDownload(plan.cache);
    await runSetup(plan);
    expect(calls()).toEqual(["compile"]);

    const cut = fakeMachine();
    leaveDownload(cut.plan.cache);
    writeFileSync(join(cut.plan.cache, "downloads", cut.plan.build.wheels[0]!.file), "cut");
    await runSetup(cut.plan);
    expect(cut.calls()).toEqual(["download", "compile"]);
  });

  test("replaces a TensorFlow folder of which a file is missing or cut", async () => {
    const { plan } = fakeMachine();
    const { tensorflow } = await runSetup(plan);
    const library = join(tensorflow, "tensorflow/libtensorflow_cc.so.2");
    writeFileSync(library, "cut");
    expect((await runSetup(plan)).did).toEqual(["downloaded"]);
    expect(readFileSync(library, "utf8")).toBe("the library");
    rmSync(library);
    expect((await runSetup(plan)).did).toEqual(["downloaded"]);
  });

  test("replaces a binding that was put there by hand, in one step", async () => {
    const { plan } = fakeMachine();
    mkdirSync(dirname(plan.link), { recursive: true });
    writeFileSync(plan.link, "by hand");
    expect((await runSetup(plan)).did).toContain("linked");
    expect(lstatSync(plan.link).isSymbolicLink()).toBe(true);
    expect(readdirSync(dirname(plan.link))).toEqual(["tfjs_binding.node"]);
  });

  test("tells the bytes that have come", async () => {
    const { plan } = fakeMachine();
    const told: [number, number][] = [];
    const progress = (done: number, total: number) => told.push([done, total]);
    await runSetup({ ...plan, progress, env: { ...plan.env, FAKE_PIP: "slow" } });
    const { bytes } = plan.build.wheels[0]!;
    expect(told).toContainEqual(["half\n".length, bytes]);
    expect(told.at(-1)).toEqual([bytes, bytes]);
  });
});

// `npm test` runs set-up first, so a TensorFlow is in the cache; without one there is nothing to compile against.
const facts = await setupFacts();
const real = facts.tensorflow.find(({ folder, whole }) => whole && folder.includes(`-${facts.wanted}-`));

test.skipIf(!real)("compiles the real binding, which loads and has the graph functions", async () => {
  const { plan } = fakeMachine();
  const build = buildFor(real!.folder.includes("-gpu-") ? "gpu" : "cpu");
  const root = (path: string) => join(import.meta.dirname, "../..", path);
  const sources = {
    own: root("tfjs-jit/src"),
    upstream: root("node_modules/@tensorflow/tfjs-node-gpu/binding"),
    headers: root("node_modules/node-api-headers/include"),
  };
  mkdirSync(plan.cache);
  symlinkSync(real!.folder, join(plan.cache, tensorflowFolderName(build)));
  const { binding, did } = await runSetup({ ...plan, build, sources, env: process.env });
  expect(did).toEqual(["compiled", "linked"]);
  const script =
    "const { executeOp, graphOp } = require(process.argv[1]); console.log(typeof executeOp, typeof graphOp)";
  const types = execFileSync(process.execPath, ["-e", script, binding], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  expect(types).toBe("function function\n");
});

describe("checkBinding", () => {
  test("passes after set-up, and says what is missing before", async () => {
    const { plan } = fakeMachine();
    expect(() => checkBinding(plan.link)).toThrow(
      new Error(`TensorFlow is not set up: ${plan.link} is missing. Run: npm run setup`),
    );
    const { tensorflow, binding } = await runSetup(plan);
    checkBinding(plan.link);

    rmSync(tensorflow, { recursive: true });
    expect(() => checkBinding(plan.link)).toThrow(
      new Error(`TensorFlow is not set up: ${tensorflow} is gone or damaged. Run: npm run setup`),
    );
    rmSync(binding);
    expect(() => checkBinding(plan.link)).toThrow(
      new Error(`TensorFlow is not set up: ${plan.link} leads to a file that is gone. Run: npm run setup`),
    );
  });
});

test("ensureLink changes a link only when it leads elsewhere", async () => {
  const { plan, folder } = fakeMachine();
  for (const name of ["a", "b"]) {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, "tfjs_binding.node"), name);
  }
  expect(await ensureLink(plan.link, join(folder, "a"))).toBe(true);
  expect(await ensureLink(plan.link, join(folder, "a"))).toBe(false);
  expect(await ensureLink(plan.link, join(folder, "b"))).toBe(true);
  expect(readFileSync(plan.link, "utf8")).toBe("b");
});

test("a device that was asked for is remembered beside the link", async () => {
  const { plan } = fakeMachine();
  expect(readChoice(plan.link)).toBeUndefined();
  await writeChoice(plan.link, "gpu");
  expect(readChoice(plan.link)).toBe("gpu");
});

test("the cache is HEDDLE_CACHE, else in XDG_CACHE_HOME when that is absolute, else in ~/.cache", () => {
  expect(cacheFolder({ HEDDLE_CACHE: "/big/disk", XDG_CACHE_HOME: "/xdg", HOME: "/home/me" })).toBe("/big/disk");
  expect(cacheFolder({ HEDDLE_CACHE: "here" })).toBe(join(process.cwd(), "here"));
  expect(cacheFolder({ XDG_CACHE_HOME: "/xdg", HOME: "/home/me" })).toBe("/xdg/heddle");
  expect(cacheFolder({ XDG_CACHE_HOME: "relative", HOME: "/home/me" })).toBe("/home/me/.cache/heddle");
});

test("formatBytes rounds up, in decimal units", () => {
  expect([1, 273_829_956, 999_999_999, 3_413_000_000].map(formatBytes)).toEqual([
    "1 MB",
    "274 MB",
    "1000 MB",
    "3.5 GB",
  ]);
});

test("the GPU build's wheels are what `and-cuda` requires, 3.4 GB in all", () => {
  const { wheels } = buildFor("gpu");
  expect(wheels.map(({ name }) => name)).toEqual([
    "tensorflow",
    ...["cublas", "cuda-cupti", "cuda-nvcc", "cuda-nvrtc", "cuda-runtime", "cudnn", "cufft", "curand"].map(
      (x) => `nvidia-${x}-cu12`,
    ),
    ...["cusolver", "cusparse", "nccl", "nvjitlink"].map((x) => `nvidia-${x}-cu12`),
  ]);
  for (const { sha256, bytes, unpackedBytes } of wheels) {
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(unpackedBytes).toBeGreaterThan(bytes);
  }
  expect(wheels.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(3_379_082_848);
});
