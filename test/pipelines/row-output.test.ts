/** Results of rows on the disk: a run that was stopped goes on, and one of other parameters is refused. */
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { UserError } from "../../pipelines/errors.js";
import type { Identity } from "../../pipelines/identity.js";
import { type RowWork, writeRows } from "../../pipelines/row-output.js";
import { newFolder, taskContext } from "./command.js";

/** Five rows in batches of two, worked on from the last to the first. */
const rows = ["a", "b", "c", "d", "é"].map((row, place) => ({ row, place })).reverse();
const whole = "a\nb\nc\nd\né\n";
const newOut = () => join(newFolder(), "out.jsonl");
const listed = (out: string) => readdirSync(join(out, "..")).sort();

type Changes = { stopBefore?: number; identity?: Identity; linesPerRow?: number; out?: string | null };

/** Works on the rows until batch `stopBefore`; says which batches were computed, and what was told. */
async function write(
  out: string | null,
  { stopBefore = Infinity, identity = { seed: 0 }, linesPerRow = 1 }: Changes = {},
) {
  const computed: number[] = [];
  const handed: string[] = [];
  const context = taskContext();
  const work: RowWork<string> = {
    ...{ stage: "test", out, identity, rows, size: 2, linesPerRow },
    run: async (batch, index) => {
      if (index === stopBefore) throw new Error("stopped");
      computed.push(index);
      return { results: batch.map(({ row }) => `${row}\n`.repeat(linesPerRow)), tokens: 1 };
    },
    onResult: async (result) => {
      handed.push(result);
    },
  };
  const stopped = await writeRows(work, context).then(
    () => false,
    (error: Error) => error.message === "stopped" || error,
  );
  return { computed, handed, stopped, events: context.events };
}

describe("a file", () => {
  test("holds the rows in their order, and nothing stands beside it", async () => {
    const out = newOut();
    expect(await write(out)).toMatchObject({ computed: [0, 1, 2], handed: whole.split(/(?<=\n)/), stopped: false });
    expect(readFileSync(out, "utf8")).toBe(whole);
    expect(listed(out)).toEqual(["out.jsonl"]);
  });

  test("on a full disk is told; once there is room, what was computed is not computed again", async () => {
    const out = newOut();
    symlinkSync("/dev/full", `${out}.${process.pid}.tmp`);
    expect(await write(out)).toMatchObject({
      computed: [0, 1, 2],
      stopped: new UserError(
        `${out}: cannot be written, the disk is full: free some; the same command goes on where it stopped`,
      ),
    });
    expect(await write(out)).toMatchObject({ computed: [], stopped: false });
    expect(readFileSync(out, "utf8")).toBe(whole);
  });

  test("stays what it was until all rows are there; what was computed stands beside it", async () => {
    const out = newOut();
    writeFileSync(out, "old\n");
    expect(await write(out, { stopBefore: 2 })).toMatchObject({ stopped: true, handed: [] });
    expect(readFileSync(out, "utf8")).toBe("old\n");
    expect(readFileSync(`${out}.partial`, "utf8")).toBe("é\nd\nc\nb\n");
    expect(readFileSync(`${out}.partial.json`, "utf8")).toBe('{"seed":0}\n');
  });

  test("goes on after the last whole batch", async () => {
    const out = newOut();
    await write(out, { stopBefore: 2 });
    const { computed, handed, events } = await write(out);
    expect(computed).toEqual([2]);
    expect(handed).toEqual(whole.split(/(?<=\n)/));
    expect(events[0]).toEqual({ type: "stage", stage: "test", steps: 3, done: 2 });
    expect(readFileSync(out, "utf8")).toBe(whole);
  });

  // "é\nd\nc\nb\na\n" is 11 bytes: é is two of them.
  test.each([
    [0, [0, 1, 2]],
    [1, [0, 1, 2]],
    [4, [0, 1, 2]],
    [5, [1, 2]],
    [8, [1, 2]],
    [9, [2]],
    [10, [2]],
    [11, []],
  ])("cut after %i bytes goes on with batches %j", async (bytes, batches) => {
    const out = newOut();
    await write(out, { stopBefore: 2 });
    appendFileSync(`${out}.partial`, "a\n");
    truncateSync(`${out}.partial`, bytes);
    expect((await write(out)).computed).toEqual(batches);
    expect(readFileSync(out, "utf8")).toBe(whole);
    expect(listed(out)).toEqual(["out.jsonl"]);
  });

  test("with two lines a row counts rows, not lines", async () => {
    const out = newOut();
    await write(out, { stopBefore: 1, linesPerRow: 2 });
    appendFileSync(`${out}.partial`, "c\nc\nb\n");
    expect((await write(out, { linesPerRow: 2 })).computed).toEqual([1, 2]);
    expect(readFileSync(out, "utf8")).toBe("a\na\nb\nb\nc\nc\nd\nd\né\né\n");
  });

  test("is not gone on with under other parameters: it says which, and keeps what was computed", async () => {
    const out = newOut();
    const identity = { seed: 0, data: "x", topK: 3 };
    await write(out, { stopBefore: 2, identity });
    const before = readFileSync(`${out}.partial`, "utf8");
    expect(await write(out, { identity: { seed: 1, data: "y", topK: 3 } })).toMatchObject({
      computed: [],
      stopped: new UserError(
        `${out}.partial: holds rows that were made with other seed, data: give what was given to go on, ` +
          "set another --out, or remove it to start over",
      ),
    });
    expect(readFileSync(`${out}.partial`, "utf8")).toBe(before);
    expect(listed(out)).toEqual(["out.jsonl.partial", "out.jsonl.partial.json"]);
    expect((await write(out, { identity })).computed).toEqual([2]);
    expect(readFileSync(out, "utf8")).toBe(whole);
  });

  test("is not gone on with where nothing says what the rows are of; removed, it begins anew", async () => {
    const out = newOut();
    writeFileSync(`${out}.partial`, "x\ny\n");
    const message = `${out}.partial: holds rows of what ${out}.partial.json should say and does not: set another --out, or remove it to start over`;
    expect(await write(out)).toMatchObject({ computed: [], stopped: new UserError(message) });
    expect(readFileSync(`${out}.partial`, "utf8")).toBe("x\ny\n");
    rmSync(`${out}.partial`);
    expect((await write(out)).computed).toEqual([0, 1, 2]);
    expect(readFileSync(out, "utf8")).toBe(whole);
  });

  test("that is empty is of no parameters", async () => {
    const out = newOut();
    writeFileSync(`${out}.partial`, "");
    writeFileSync(`${out}.partial.json`, '{"seed":7}\n');
    expect((await write(out)).computed).toEqual([0, 1, 2]);
  });

  test("leaves nothing behind where the first batch fails", async () => {
    const out = newOut();
    expect((await write(out, { stopBefore: 0 })).stopped).toBe(true);
    expect(listed(out)).toEqual([]);
  });

  test("has one writer", async () => {
    const out = newOut();
    let other: Promise<unknown> | undefined;
    await writeRows(
      {
        ...{ stage: "test", out, identity: {}, rows, size: 5, linesPerRow: 1 },
        run: async (batch) => {
          other = writeRows(
            {
              stage: "test",
              out,
              identity: {},
              rows,
              size: 5,
              linesPerRow: 1,
              run: async () => ({ results: [], tokens: 0 }),
            },
            taskContext(),
          );
          await expect(other).rejects.toThrow(
            `${out}.lock: process ${process.pid} is writing ${out}. Wait for it or stop it (kill ${process.pid}), or set another --out`,
          );
          return { results: batch.map(({ row }) => `${row}\n`), tokens: 1 };
        },
      },
      taskContext(),
    );
    expect(readFileSync(out, "utf8")).toBe(whole);
  });
});

test("stdout gets each row once those before it are there", async () => {
  const { events, handed } = await write("-");
  const texts = events.flatMap((event) => (event.type === "text" ? [event.text] : []));
  expect(texts).toEqual(whole.split(/(?<=\n)/));
  expect(handed).toEqual(texts);
});

test("without a file the rows are handed on alone", async () => {
  const { events, handed } = await write(null);
  expect(events.every(({ type }) => type !== "text")).toBe(true);
  expect(handed.join("")).toBe(whole);
  expect(existsSync("null")).toBe(false);
});
