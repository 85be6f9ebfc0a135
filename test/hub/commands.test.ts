// heddle pull and heddle push as a user starts them.
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { heddle, startHeddle } from "../pipelines/command.js";
import { filesOf, fixture, SMALL_FILES, useHub, weights } from "./hub-folder.js";
import { type FakeHub, sha256, startHub } from "./server.js";

const LARGE = weights(3_000_000);
const OID = sha256(LARGE);

let hub: FakeHub;
let home: string;
beforeAll(async () => {
  hub = await startHub();
  hub.addModel("org/tiny", filesOf(fixture("gemma2-tiny")));
  hub.addModel("org/large", { ...SMALL_FILES, "model.safetensors": LARGE });
});
beforeEach(() => {
  home = useHub(hub);
  hub.fault = () => undefined;
  hub.requests.length = 0;
});
afterAll(() => hub.close());

const blob = () => join(home, "hub", "models--org--large", "blobs", OID);
const ranges = () => hub.requests.filter((line) => line.startsWith(`GET /${OID}`));

const partialSize = () => statSync(`${blob()}.incomplete`, { throwIfNoEntry: false })?.size ?? 0;

/** Starts a pull whose store sends 2 MB and then no more; resolves once a first part of them is on the disk. */
async function stalledPull() {
  hub.fault = (request) => (request.startsWith(`GET /${OID}`) ? { stallAt: 2_000_000 } : undefined);
  const child = startHeddle(home, "pull", "org/large");
  let stderr = "";
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  for (let i = 0; i < 500 && partialSize() === 0; i++) await sleep(20);
  hub.fault = () => undefined;
  hub.requests.length = 0;
  return { child, end: once(child, "close"), stderr: () => stderr };
}

describe("heddle pull", () => {
  test("prints the folder, and with --out that one, which has plain files", async () => {
    const { code, stdout, stderr } = await heddle(home, "pull", "org/large");
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/^pull org\/large: 3000 kB\npull org\/large: 3000 kB done in \d+s/),
    ]);
    const folder = stdout.trimEnd();
    expect(folder.startsWith(join(home, "hub", "models--org--large", "snapshots"))).toBe(true);
    const copied = await heddle(home, "pull", "org/large@main", "--out", "here");
    expect(copied).toMatchObject({ code: 0, stdout: "here\n" });
    expect(new Set(readdirSync(join(home, "here")))).toEqual(new Set(readdirSync(folder)));
    expect(readFileSync(join(home, "here", "model.safetensors")).equals(LARGE)).toBe(true);
  });

  test("--out takes the place of a model or an adapter, and says before it downloads where something else is", async () => {
    hub.addModel("org/adapter", { "adapter_config.json": "{}", "adapter_model.safetensors": "x" });
    for (let i = 0; i < 2; i++) {
      expect(await heddle(home, "pull", "org/adapter", "--out", "here")).toMatchObject({ code: 0, stdout: "here\n" });
    }
    expect(readdirSync(join(home, "here")).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
    mkdirSync(join(home, "thesis"));
    writeFileSync(join(home, "thesis", "thesis.tex"), "");
    hub.requests.length = 0;
    expect(await heddle(home, "pull", "org/large", "--out", "thesis")).toEqual({
      code: 2,
      stdout: "",
      stderr: "error: thesis: holds other files than a model; give a new or an empty folder\n",
    });
    expect(hub.requests).toEqual([]);
  });

  test("killed, goes on within the file", async () => {
    const { child, end } = await stalledPull();
    child.kill("SIGKILL");
    await end;
    const kept = partialSize();
    expect(kept).toBeGreaterThan(1_000_000);
    expect((await heddle(home, "pull", "org/large")).code).toBe(0);
    expect(ranges()).toEqual([`GET /${OID} bytes=${kept}-`]);
    expect(readFileSync(blob()).equals(LARGE)).toBe(true);
  });

  test("after Ctrl-C says how to go on, with 75, and does", async () => {
    const { child, end, stderr } = await stalledPull();
    child.kill("SIGINT");
    expect(await end).toEqual([75, null]);
    const kept = partialSize();
    expect(kept).toBeGreaterThan(1_000_000);
    expect(stderr()).toContain("interrupted by SIGINT; run the same command again to go on\n");
    expect((await heddle(home, "pull", "org/large")).code).toBe(0);
    expect(ranges()).toEqual([`GET /${OID} bytes=${kept}-`]);
  });

  test("what is not there ends with 2", async () => {
    expect(await heddle(home, "pull", "org/none")).toEqual({
      code: 2,
      stdout: "",
      stderr: `error: org/none: not found at ${hub.url}: check the spelling; or the token of HF_TOKEN may not see it\n`,
    });
  });
});

test("heddle push: what was pulled, to another name", async () => {
  const { stdout } = await heddle(home, "pull", "org/tiny");
  const pushed = await heddle(home, "push", stdout.trimEnd(), "me/tiny", "--private", "--message", "mine");
  expect(pushed).toMatchObject({ code: 0, stdout: `${hub.url}/me/tiny\n` });
  expect(hub.repos["me/tiny"]!.isPrivate).toBe(true);
  expect(await heddle(home, "push", home, "me/tiny")).toMatchObject({
    code: 2,
    stderr: `error: ${home}: has no config.json and no adapter_config.json, expected a model or adapter folder\n`,
  });
});
