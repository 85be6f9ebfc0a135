import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { compiledModule } from "../../config/paths.js";
import { removeLeftovers, writeFileAtomic } from "../../pipelines/files.js";

const folder = () => mkdtempSync(join(tmpdir(), "heddle-files-"));

describe("writeFileAtomic", () => {
  test("writes text and bytes, replaces what was there and leaves nothing else behind", () => {
    const dir = folder();
    writeFileAtomic(join(dir, "a"), "old and longer");
    writeFileAtomic(join(dir, "a"), "new");
    writeFileAtomic(join(dir, "b"), new Uint8Array([0, 255]));
    expect(readFileSync(join(dir, "a"), "utf8")).toBe("new");
    expect([...readFileSync(join(dir, "b"))]).toEqual([0, 255]);
    expect(readdirSync(dir)).toEqual(["a", "b"]);
  });

  test("keeps the old file when the new one cannot be put in its place", () => {
    const dir = folder();
    expect(() => writeFileAtomic(join(dir, "missing", "a"), "x")).toThrow(/ENOENT/);
    expect(() => writeFileAtomic(dir, "x")).toThrow(/EISDIR|ENOTEMPTY|EEXIST/);
    expect(readdirSync(dir)).toEqual([]);
  });

  test("a kill at any instant leaves one whole version", async () => {
    const path = join(folder(), "a");
    writeFileSync(path, "a".repeat(1 << 20));
    const endless = `import { removeLeftovers, writeFileAtomic } from "${compiledModule("pipelines/files.js")}";
      for (let i = 0; ; i++) {
        writeFileAtomic(${JSON.stringify(path)}, "ab"[i % 2].repeat(1 << 20));
        if (i === 0) process.stdout.write("writing");
      }`;
    for (const ms of [1, 4, 8, 13, 19]) {
      const writer = spawn(process.execPath, ["--input-type=module", "-e", endless]);
      const exited = once(writer, "exit");
      await once(writer.stdout, "data");
      await sleep(ms);
      writer.kill("SIGKILL");
      await exited;
      const text = readFileSync(path, "utf8");
      expect(text.length).toBe(1 << 20);
      expect(new Set(text).size).toBe(1);
    }
  });
});

test("removeLeftovers removes what killed processes left of this file, and nothing else", () => {
  const dir = folder();
  const { pid: gone } = spawnSync("true");
  const others = [
    "out.jsonl",
    `other.jsonl.${gone}.tmp`,
    `out.jsonl.${process.pid}.tmp`,
    "out.jsonl.x.tmp",
    "outXjsonl.1.tmp",
  ];
  for (const name of [...others, `out.jsonl.${gone}.tmp`]) writeFileSync(join(dir, name), "");
  removeLeftovers(join(dir, "out.jsonl"));
  expect(new Set(readdirSync(dir))).toEqual(new Set(others));
});
