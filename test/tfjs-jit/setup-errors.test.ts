// Each way in which set-up fails, and the one line that it says then.

import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SetupError } from "../../tfjs-jit/src/setup-error.js";
import { checkPlatform } from "../../tfjs-jit/src/setup-platform.js";
import { runSetup } from "../../tfjs-jit/src/setup-steps.js";
import { type FakeMachine, fakeMachine } from "./fake-machine.js";

/** The message of the SetupError that set-up ends in. Nothing but whole folders may be left. */
async function failure(machine: FakeMachine, change: Partial<FakeMachine["plan"]> = {}, env: NodeJS.ProcessEnv = {}) {
  const plan = { ...machine.plan, ...change, env: { ...machine.plan.env, ...env } };
  const error = await runSetup(plan).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(SetupError);
  return (error as SetupError).message;
}

const withPip = (pip: string) => failure(fakeMachine(), {}, { FAKE_PIP: pip });

describe("Python", () => {
  const install = "Install them (Debian, Ubuntu: apt install python3-pip), then run npm run setup again.";

  test("is missing", async () => {
    expect(await failure(fakeMachine(["c++"]))).toBe(
      `no python3 and no python on PATH; python with pip downloads TensorFlow. ${install}`,
    );
  });

  test("has no pip", async () => {
    expect(await withPip("none")).toBe(`python3 on PATH: without pip. ${install}`);
  });

  test("may be named python", async () => {
    expect((await runSetup(fakeMachine(["python", "c++"]).plan)).did).toContain("downloaded");
  });
});

describe("the C++ compiler", () => {
  const install =
    "Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++) or name one in CXX, then run npm run setup again.";

  test("is missing, which is said before the download", async () => {
    const machine = fakeMachine(["python3"]);
    expect(await failure(machine)).toBe(`no C++ compiler: no c++, g++ or clang++ on PATH. ${install}`);
    expect(machine.calls()).toEqual([]);
  });

  test("is missing when all but the binding is in the cache", async () => {
    const machine = fakeMachine();
    await failure(machine, {}, { FAKE_CXX: "broken" });
    expect(await failure(machine, {}, { CXX: "no-such-compiler -m64" })).toBe(
      `the C++ compiler that CXX names, "no-such-compiler -m64", does not run. ${install}`,
    );
  });

  test("is the one that CXX names, with its arguments", async () => {
    const { plan, folder } = fakeMachine(["python3", "g++"]);
    expect((await runSetup({ ...plan, env: { ...plan.env, CXX: `${folder}/bin/g++ -m64` } })).did).toContain(
      "compiled",
    );
  });

  test("reports an error", async () => {
    const machine = fakeMachine();
    expect(await failure(machine, {}, { FAKE_CXX: "broken" })).toBe(
      "fake c++ 1 cannot compile the binding: binding.cc:7:1: error: 'TF_Graph' was not declared " +
        `(all of it: ${machine.plan.cache}/compile-error.log). Try another compiler in CXX, then run npm run setup again.`,
    );
  });

  test("makes what does not load", async () => {
    expect(await failure(fakeMachine(), {}, { FAKE_CXX: "junk" })).toMatch(
      /^the compiled binding does not load: .*tfjs_binding\.node: .+$/,
    );
  });
});

describe("the disk", () => {
  test("has no room, which is said before the download", async () => {
    const machine = fakeMachine();
    const [wheel] = machine.plan.build.wheels;
    const build = { ...machine.plan.build, wheels: [{ ...wheel!, unpackedBytes: 1e18 }] };
    expect(await failure(machine, { build })).toMatch(
      /^no room on the disk of \S+\/cache: 1000000000\.\d GB needed, [\d.]+ GB free\. Free some, or set HEDDLE_CACHE to a folder on another disk, then run npm run setup again\.$/,
    );
    expect(machine.calls()).toEqual([]);
  });

  test("fills up while pip downloads", async () => {
    const machine = fakeMachine();
    const pip = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
    expect(await failure(machine, {}, { FAKE_PIP: pip })).toBe(
      `no room on the disk of ${machine.plan.cache}: pip could not store fake-tensorflow 1.0 (1 MB). Free some, or set HEDDLE_CACHE to a folder on another disk, then run npm run setup again.`,
    );
  });

  test("fills up while unpacking", async () => {
    const machine = fakeMachine();
    expect(await failure(machine, {}, { FAKE_PIP: "full-at-unpack" })).toBe(
      `no room on the disk of ${machine.plan.cache}: ${machine.plan.build.wheels[0]!.file} needs 1 MB unpacked. Free some, or set HEDDLE_CACHE to a folder on another disk, then run npm run setup again.`,
    );
    expect(readdirSync(machine.plan.cache).sort()).toEqual(["downloads", "tmp"]);
    expect(readdirSync(join(machine.plan.cache, "tmp"))).toEqual([]);
  });

  test("refuses to be written", async () => {
    const machine = fakeMachine();
    writeFileSync(join(machine.folder, "file"), "");
    const cache = join(machine.folder, "file", "cache");
    expect(await failure(machine, { cache })).toBe(
      `cannot write ${cache}: ENOTDIR: not a directory, mkdir '${cache}'. Set HEDDLE_CACHE to a folder that can be written, then run npm run setup again.`,
    );
  });
});

test("node_modules refuses to be written", async () => {
  const machine = fakeMachine();
  const file = join(machine.folder, "node_modules");
  writeFileSync(file, "");
  expect(await failure(machine)).toBe(
    `cannot write ${file}/lib/napi-v8: ENOTDIR: not a directory, mkdir '${file}/lib/napi-v8'. Make it writable, then run npm run setup again.`,
  );
});

describe("the download", () => {
  const wheel = fakeMachine().plan.build.wheels[0]!;

  test("finds no network, though pip ends in another reason", async () => {
    const pip = `WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: [Errno -2] Name or service not known'
ERROR: No matching distribution found for fake-tensorflow==1.0`;
    expect(await withPip(pip)).toBe(
      `no network: pip cannot reach its index for fake-tensorflow 1.0. Connect and run npm run setup again; or, with ${wheel.file} in a folder, PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER npm run setup.`,
    );
  });

  test("is cut short while pip looks on", async () => {
    expect(await withPip("ERROR: HTTPSConnectionPool(host='x', port=443): Read timed out.")).toBe(
      "fake-tensorflow 1.0: the download was cut short (HTTPSConnectionPool(host='x', port=443): Read timed out.). Run npm run setup again.",
    );
  });

  test("is cut short and pip does not see it", async () => {
    expect(await withPip("short")).toBe(
      `${wheel.file}: cut short, 100 of ${wheel.bytes} bytes came. Run npm run setup again.`,
    );
  });

  test("is another file", async () => {
    expect(await withPip("other")).toMatch(
      new RegExp(
        `^${wheel.file}: sha256 [0-9a-f]{64}, expected ${wheel.sha256}: not the file on PyPI\\. Check pip's index \\(pip config list\\), then run npm run setup again\\.$`,
      ),
    );
  });

  test("is not there although pip says so", async () => {
    expect(await withPip("nothing")).toBe(`pip did not download ${wheel.file}. Run npm run setup again.`);
  });

  test("is not on the index", async () => {
    const pip = "ERROR: No matching distribution found for fake-tensorflow==1.0";
    expect(await withPip(pip)).toMatch(
      new RegExp(
        `^pip [\\d.]+ finds no ${wheel.file} on its index\\. Check pip's index \\(pip config list\\), or update pip, then run npm run setup again\\.$`,
      ),
    );
  });

  test("fails for a reason that only pip knows", async () => {
    expect(await withPip("ERROR: 403 Client Error: Forbidden")).toBe(
      "pip cannot download fake-tensorflow 1.0: 403 Client Error: Forbidden. Run npm run setup again.",
    );
  });

  test("leaves nothing when it failed", async () => {
    const machine = fakeMachine();
    await failure(machine, {}, { FAKE_PIP: "short" });
    expect(readdirSync(machine.plan.cache)).toEqual(["tmp"]);
    expect(readdirSync(join(machine.plan.cache, "tmp"))).toEqual([]);
  });
});

describe("the platform", () => {
  const only = "TensorFlow can be set up on linux x64 with glibc 2.27 or newer only";

  test.each([
    ["darwin", "arm64", "2.36", `${only}; this is darwin arm64`],
    ["linux", "arm64", "2.36", `${only}; this is linux arm64`],
    ["linux", "x64", undefined, `${only}; this linux has another C library (musl?)`],
    ["linux", "x64", "2.17", `${only}; this is glibc 2.17`],
  ])("%s %s with glibc %s is not supported", (platform, arch, glibc, message) => {
    expect(() => checkPlatform(platform, arch, () => glibc)).toThrow(new SetupError(message));
  });

  test.each(["2.27", "2.36", "3.0"])("linux x64 with glibc %s is", (glibc) => {
    checkPlatform("linux", "x64", () => glibc);
  });
});
