import { createRequire } from "node:module";
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  describe as describeMachine,
  doctorCommand,
  isSupportedNode,
  type MachineFacts,
  nextSteps,
} from "../../pipelines/doctor.js";

const link = "/clone/node_modules/tfjs_binding.node";
const cache = "/home/me/.cache/heddle";

const ready: MachineFacts = {
  heddle: "0.1.0",
  node: { version: "20.20.2", needed: "^20.19 || >=22.13", isSupported: true },
  platform: "linux x64",
  cpu: { model: "AMD EPYC 9R14", cores: 2 },
  memory: { total: 16e9, free: 12.34e9 },
  environment: { HEDDLE_JIT: "0" },
  setup: {
    wanted: "2.21.0",
    cache: { folder: cache, freeBytes: 72e9, neededBytes: 0 },
    unsupported: null,
    tensorflow: [{ folder: `${cache}/tensorflow-2.21.0-cpu-linux-x64`, whole: true }],
    link: {
      path: link,
      state: "ready",
      binding: { version: "2.21.0", device: "cpu", tensorflow: `${cache}/tensorflow-2.21.0-cpu-linux-x64` },
    },
    python: { command: "python3", version: "3.11.7", pip: "23.2.1" },
    compiler: { command: "c++", version: "c++ (Debian 12.2.0) 12.2.0" },
    nvidia: null,
    device: "cpu",
  },
};

const bare: MachineFacts["setup"] = {
  ...ready.setup,
  cache: { folder: cache, freeBytes: 1e9, neededBytes: 1.2e9 },
  tensorflow: [],
  link: { path: link, state: "missing", binding: null },
  python: null,
  compiler: null,
};

const steps = (setup: Partial<MachineFacts["setup"]>) => nextSteps({ ...ready, setup: { ...ready.setup, ...setup } });

describe("nextSteps", () => {
  test("is empty when all is ready, with or without a compiler", () => {
    expect(nextSteps(ready)).toEqual([]);
    expect(steps({ compiler: null, python: null })).toEqual([]);
  });

  test("lists what set-up needs, then set-up", () => {
    expect(steps(bare)).toEqual([
      "install Python with pip (Debian, Ubuntu: apt install python3-pip)",
      "install a C++ compiler (Debian, Ubuntu: apt install g++), or name one in CXX",
      `free 0.2 GB on the disk of ${cache}, or set HEDDLE_CACHE`,
      "npm run setup",
    ]);
  });

  test.each(["missing", "dangling", "foreign", "damaged"] as const)("is set-up when the link is %s", (state) => {
    expect(steps({ link: { path: link, state, binding: null } })).toEqual(["npm run setup"]);
  });

  test("is set-up when another version is linked", () => {
    const binding = { ...ready.setup.link.binding!, version: "2.20.0" };
    expect(steps({ link: { path: link, state: "ready", binding } })).toEqual(["npm run setup"]);
  });

  test("says that a GPU lies idle, or that its driver is too old", () => {
    const nvidia = { name: "NVIDIA H100", driver: "550.54.14", usable: true, memory: 80e9 };
    expect(steps({ nvidia, device: "gpu" })).toEqual([
      "npm run setup -- --gpu   to compute on the GPU; TensorFlow is set up for the CPU",
    ]);
    expect(steps({ nvidia: { ...nvidia, driver: "470.57.02", usable: false } })).toEqual([
      "update the NVIDIA driver to 525 or newer to compute on the GPU",
    ]);
  });

  test("is the reason where nothing can be set up", () => {
    expect(steps({ ...bare, unsupported: "linux x64 only; this is darwin arm64" })).toEqual([
      "linux x64 only; this is darwin arm64",
    ]);
  });

  test("names the Node that is needed", () => {
    const node = { version: "18.20.0", needed: "^20.19 || >=22.13", isSupported: false };
    expect(nextSteps({ ...ready, node })).toEqual(["install Node ^20.19 || >=22.13; this is 18.20.0"]);
  });
});

test("isSupportedNode is ^20.19 || >=22.13", () => {
  const versions = ["18.20.0", "20.18.3", "20.19.0", "21.7.0", "22.12.0", "22.13.0", "23.0.0", "24.1.0"];
  expect(versions.filter(isSupportedNode)).toEqual(["20.19.0", "22.13.0", "23.0.0", "24.1.0"]);
});

describe("the report", () => {
  test("has one line a subject", () => {
    expect(describeMachine(ready, [])).toBe(`\
heddle      0.1.0
Node        20.20.2
platform    linux x64, 2 cores (AMD EPYC 9R14)
memory      16.0 GB, 12.3 GB free
cache       /home/me/.cache/heddle, 72.0 GB free
Python      3.11.7, pip 23.2.1 (python3)
compiler    c++ (Debian 12.2.0) 12.2.0 (c++)
GPU         none: no NVIDIA driver answers
TensorFlow  /home/me/.cache/heddle/tensorflow-2.21.0-cpu-linux-x64
binding     2.21.0 (CPU), /clone/node_modules/tfjs_binding.node
HEDDLE_JIT  0
ready       TensorFlow 2.21.0 (CPU)
`);
  });

  test("ends with what to do", () => {
    const text = describeMachine({ ...ready, environment: {}, setup: bare }, ["install g++", "npm run setup"]);
    expect(text.split("\n").slice(-8)).toEqual([
      "Python      none with pip",
      "compiler    none",
      "GPU         none: no NVIDIA driver answers",
      "TensorFlow  2.21.0 is not in the cache",
      "binding     /clone/node_modules/tfjs_binding.node is missing",
      "next        install g++",
      "next        npm run setup",
      "",
    ]);
  });
});

describe("heddle doctor", () => {
  afterEach(() => vi.restoreAllMocks());

  test("--json tells this machine, without loading tfjs", async () => {
    vi.stubEnv("HEDDLE_CACHE", "/nowhere/heddle");
    const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    await doctorCommand.parseAsync(["--json"], { from: "user" });
    vi.unstubAllEnvs();
    const facts = JSON.parse(`${write.mock.calls[0]![0]}`) as MachineFacts & { next: string[] };
    expect(facts).toMatchObject({
      node: { version: process.versions.node },
      environment: { HEDDLE_CACHE: "/nowhere/heddle" },
      setup: { cache: { folder: "/nowhere/heddle" }, tensorflow: [] },
      next: expect.any(Array),
    });
    expect(facts.setup.cache.freeBytes).toBeGreaterThan(0);
    expect(Object.keys(createRequire(import.meta.url).cache).filter((path) => path.includes("@tensorflow"))).toEqual(
      [],
    );
  });
});
