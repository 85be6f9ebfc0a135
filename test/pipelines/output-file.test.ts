import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { removeLeftovers, writeStreamed } from "../../pipelines/output-file.js";
import { newFolder } from "./command.js";

describe("writeStreamed", () => {
  test("the file appears when all of it is written", async () => {
    const path = join(newFolder(), "out.jsonl");
    await writeStreamed(path, async (write) => {
      write("a\n");
      await Promise.resolve();
      write("b\n");
      expect(existsSync(path)).toBe(false);
      expect(readFileSync(`${path}.${process.pid}.tmp`, "utf8")).toBe("a\nb\n");
    });
    expect(readFileSync(path, "utf8")).toBe("a\nb\n");
    expect(readdirSync(join(path, ".."))).toEqual(["out.jsonl"]);
  });

  test("a failure leaves the file that was there, and nothing else", async () => {
    const path = join(newFolder(), "out.jsonl");
    writeFileSync(path, "old\n");
    const writing = writeStreamed(path, async (write) => {
      write("new\n");
      throw new Error("stopped");
    });
    await expect(writing).rejects.toThrow("stopped");
    expect(readFileSync(path, "utf8")).toBe("old\n");
    expect(readdirSync(join(path, ".."))).toEqual(["out.jsonl"]);
  });
});

test("removeLeftovers removes what killed processes left of this file, and nothing else", () => {
  const dir = newFolder();
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
