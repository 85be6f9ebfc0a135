/** Training state: bit-exact round trip, refusals, and what a kill or a full disk leaves behind. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeSafetensors } from "safetensors-ts";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { loadTrainingState, saveTrainingState, type TrainingState } from "../../student/training-state.js";

vi.mock("safetensors-ts", async (original) => {
  const actual = await original<typeof import("safetensors-ts")>();
  return { ...actual, writeSafetensors: vi.fn(actual.writeSafetensors) };
});

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "training-state-"));
});
afterEach(() => rm(dir, { recursive: true }));

const shapes = { w: [2, 2], b: [2] };
const filled = (value: number) => ({
  w: { shape: [2, 2], values: new Float32Array(4).fill(value) },
  b: { shape: [2], values: new Float32Array(2).fill(value) },
});
const stateOf = (step: number, value = step): TrainingState => ({
  step,
  parameters: filled(value),
  m: filled(value),
  v: filled(value),
  extra: {},
  meta: { value },
});

describe("saveTrainingState and loadTrainingState", () => {
  test("bring back every bit: NaN payloads, -0, denormals, infinities", async () => {
    const bits = Uint32Array.of(0x7fc00001, 0xffc12345, 0x80000000, 0x00000001, 0x7f800000, 0xff800000, 0x3f800001, 0);
    const values = new Float32Array(bits.buffer);
    const tensors = {
      "model.layers.0.w": { shape: [2, 4], values },
      scalar: { shape: [], values: values.slice(2, 3) },
    };
    const state: TrainingState = {
      step: 7,
      parameters: tensors,
      m: tensors,
      v: tensors,
      extra: { "ema.w": { shape: [8], values }, empty: { shape: [0, 3], values: new Float32Array() } },
      meta: { seed: 1, rewards: [0.1, null], text: "π" },
    };
    await saveTrainingState(dir, state);
    const loaded = await loadTrainingState(dir, { "model.layers.0.w": [2, 4], scalar: [] });
    expect(loaded).toMatchObject({ step: 7, meta: state.meta });
    for (const group of ["parameters", "m", "v", "extra"] as const) {
      const got = Object.entries(loaded![group]).map(([name, t]) => [
        name,
        t.shape,
        Buffer.from(t.values.slice().buffer),
      ]);
      const put = Object.entries(state[group]).map(([name, t]) => [
        name,
        t.shape,
        Buffer.from(t.values.slice().buffer),
      ]);
      expect(Object.fromEntries(got.map((x) => [x[0], x]))).toEqual(Object.fromEntries(put.map((x) => [x[0], x])));
    }
  });

  test("keep the newest state alone, in files that other tools read", async () => {
    await saveTrainingState(dir, stateOf(9));
    await saveTrainingState(dir, stateOf(10));
    expect(await readdir(dir)).toEqual(["checkpoint-10"]);
    expect((await readdir(join(dir, "checkpoint-10"))).sort()).toEqual([
      "extra.safetensors",
      "m.safetensors",
      "parameters.safetensors",
      "state.json",
      "v.safetensors",
    ]);
    expect(await readFile(join(dir, "checkpoint-10", "state.json"), "utf8")).toBe(
      '{\n  "step": 10,\n  "meta": {\n    "value": 10\n  }\n}\n',
    );
  });

  test("replace the state of the same step", async () => {
    await saveTrainingState(dir, stateOf(5, 1));
    await saveTrainingState(dir, stateOf(5, 2));
    expect(await readdir(dir)).toEqual(["checkpoint-5"]);
    expect(await loadTrainingState(dir, shapes)).toEqual(stateOf(5, 2));
  });

  test("make the folder, find nothing in one that is missing or empty, and leave other files in it alone", async () => {
    const inner = join(dir, "distill");
    expect(await loadTrainingState(inner, shapes)).toBeUndefined();
    await saveTrainingState(inner, stateOf(1));
    await writeFile(join(inner, "log.jsonl"), "");
    await saveTrainingState(inner, stateOf(2));
    expect(await readdir(inner)).toEqual(["checkpoint-2", "log.jsonl"]);
    expect(await loadTrainingState(dir, shapes)).toBeUndefined();
  });

  test("read each tensor's values once, when it is written", async () => {
    let reads = 0;
    const counted = {
      shape: [2],
      get values() {
        reads++;
        return new Float32Array(2);
      },
    };
    await saveTrainingState(dir, { ...stateOf(1), parameters: { counted } });
    expect(reads).toBe(1);
  });
});

describe("loadTrainingState", () => {
  test("refuses a state whose tensors have other names or shapes, and names both", async () => {
    await saveTrainingState(dir, stateOf(3));
    await expect(loadTrainingState(dir, { w: [4], bias: [2] })).rejects.toThrow(
      new RangeError(
        `${dir}/checkpoint-3/parameters.safetensors: this training state is of another model, or other tensors of it learnt: ` +
          '"b" is [2] in the state, missing in the model; "w" is [2,2] in the state, [4] in the model; ' +
          '"bias" is missing in the state, [2] in the model. ' +
          "Resume with the model and the `trainable` it was saved with, or train into another folder",
      ),
    );
  });

  test("refuses moments that do not fit the parameters, and counts what it does not list", async () => {
    await saveTrainingState(dir, { ...stateOf(3), m: {} });
    await expect(loadTrainingState(dir, shapes)).rejects.toThrow(/\/m\.safetensors: .*"w" is missing in the state/);
    await expect(loadTrainingState(dir, { a: [1], c: [1], d: [1] })).rejects.toThrow(/; and 2 more\. Resume/);
  });

  test("names a damaged file", async () => {
    await saveTrainingState(dir, stateOf(3));
    const path = join(dir, "checkpoint-3", "v.safetensors");
    await writeFile(path, (await readFile(path)).subarray(0, -1));
    await expect(loadTrainingState(dir, shapes)).rejects.toThrow(`${path}: `);
  });
});

describe("at every instant of a save", () => {
  const at = (name: string) => join(dir, name);
  const save = (step: number, value = step) => saveTrainingState(dir, stateOf(step, value));
  const load = () => loadTrainingState(dir, shapes);
  /** What `name` would be if the process had been killed while it wrote or removed it. */
  const leaveHalf = async (name: string) => {
    await cp(at("checkpoint-1"), at(name), { recursive: true });
    await rm(join(at(name), "m.safetensors"));
  };

  test("the old state is there while the new one is partial", async () => {
    await save(1);
    await leaveHalf("checkpoint-2.partial");
    expect(await load()).toEqual(stateOf(1));
  });

  test("the new state is there before the old one is removed, and half-way", async () => {
    await save(1);
    await cp(at("checkpoint-1"), at("old"), { recursive: true });
    await save(2);
    await rename(at("old"), at("checkpoint-1"));
    expect(await load()).toEqual(stateOf(2));
    await leaveHalf("checkpoint-1.partial");
    expect(await load()).toEqual(stateOf(2));
  });

  test("the old state of the same step is there while the new one is put in its place", async () => {
    await save(1, 10);
    await rename(at("checkpoint-1"), at("checkpoint-1.replaced"));
    expect(await load()).toEqual(stateOf(1, 10));
    await save(1, 11);
    expect(await load()).toEqual(stateOf(1, 11));
  });

  test("the next save removes what was left", async () => {
    await save(1);
    await leaveHalf("checkpoint-2.partial");
    await leaveHalf("checkpoint-0.replaced.partial");
    await rename(at("checkpoint-1"), at("checkpoint-1.replaced"));
    await save(1);
    await save(3);
    expect(await readdir(dir)).toEqual(["checkpoint-3"]);
  });

  // Compiled, because plain node runs the child.
  const compiled = fileURLToPath(new URL("../../dist/student/training-state.js", import.meta.url));
  const child = `
    import { saveTrainingState } from ${JSON.stringify(compiled)};
    const [dir, first, sameStep] = process.argv.slice(1);
    for (let value = Number(first); ; value++) {
      const tensors = { w: { shape: [20000], values: new Float32Array(20000).fill(value) } };
      const step = sameStep === "true" ? 1 : value;
      await saveTrainingState(dir, { step, parameters: tensors, m: tensors, v: tensors, extra: tensors, meta: value });
      process.stdout.write(value + "\\n");
    }`;

  test.each([
    ["as the step grows", false],
    ["of one step", true],
  ])("a killed process leaves a whole state, never older than its last save, %s", async (_, sameStep) => {
    let last = 0;
    for (const delayMs of [0, 1, 2, 3, 5, 8, 13, 21]) {
      const saver = spawn(process.execPath, [
        "--input-type=module",
        "-e",
        child,
        dir,
        String(last + 1),
        String(sameStep),
      ]);
      saver.stdout.on("data", (text) => {
        last = Number(String(text).trim().split("\n").at(-1));
      });
      await once(saver.stdout, "data");
      setTimeout(() => saver.kill("SIGKILL"), delayMs);
      await once(saver, "close");

      const state = await loadTrainingState(dir, { w: [20000] });
      const value = state!.meta as number;
      expect(value).toBeGreaterThanOrEqual(last);
      expect(state!.step).toBe(sameStep ? 1 : value);
      for (const group of ["parameters", "m", "v", "extra"] as const) {
        expect(state![group].w!.values.every((x) => x === value)).toBe(true);
      }
      last = value;
    }
  });
});

describe("on a full disk", () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const fillDisk = () =>
    vi.mocked(writeSafetensors).mockImplementationOnce(async (path) => {
      await writeFile(path, "half");
      throw full;
    });

  test("keeps the old state, removes the partial one, and says how much it needs", async () => {
    await saveTrainingState(dir, stateOf(1));
    fillDisk();
    const error = await saveTrainingState(dir, stateOf(2)).catch((e: unknown) => e);
    expect(error).toEqual(
      new Error(
        `${dir}: the disk is full: the training state of step 2 needs 72 bytes. ` +
          "The earlier checkpoint-1 is kept. Free some space and start again",
      ),
    );
    expect((error as Error).cause).toBe(full);
    expect(await readdir(dir)).toEqual(["checkpoint-1"]);
    expect(await loadTrainingState(dir, shapes)).toEqual(stateOf(1));
  });

  test("says so when there was no earlier state", async () => {
    fillDisk();
    await expect(saveTrainingState(dir, stateOf(2))).rejects.toThrow("needs 72 bytes. No earlier one exists. Free");
    expect(await readdir(dir)).toEqual([]);
  });

  test("passes other errors on as they are", async () => {
    await writeFile(join(dir, "file"), "");
    await expect(saveTrainingState(join(dir, "file"), stateOf(1))).rejects.toThrow("EEXIST");
  });
});
