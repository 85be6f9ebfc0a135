import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  checkpointPath,
  collectSet,
  existingFile,
  existingFolder,
  integer,
  modelFolder,
  modelPath,
  number,
  outputFile,
  share,
} from "../../pipelines/flags.js";

describe("flags", () => {
  test("integers", () => {
    expect([integer(0)("0"), integer(-1, 5)("-1"), integer(1)("007")]).toEqual([0, -1, 7]);
    for (const text of ["", " ", "1.0", "1e3", "0x10", "-1", "ten", "99999999999999999999"]) {
      expect(() => integer(0)(text)).toThrow("expected an integer, 0 or more");
    }
    expect(() => integer(0, 65535)("65536")).toThrow("expected an integer, from 0 to 65535");
  });

  test("numbers", () => {
    expect([number(0)("0"), number(0)("1e-5"), number(0, 1)("1")]).toEqual([0, 1e-5, 1]);
    for (const text of ["", " ", "-0.1", "NaN", "Infinity", "1,5"]) {
      expect(() => number(0)(text)).toThrow("expected a number, 0 or more");
    }
    expect(() => number(0, 1)("1.01")).toThrow("expected a number, from 0 to 1");
  });

  test("shares", () => {
    expect([share("1"), share("0.001")]).toEqual([1, 0.001]);
    for (const text of ["0", "1.1", "", "x"])
      expect(() => share(text)).toThrow("expected a number above 0 and at most 1");
  });

  test("files and folders", () => {
    const dir = mkdtempSync(join(tmpdir(), "heddle-flags-"));
    const file = join(dir, "a.jsonl");
    writeFileSync(file, "");
    expect([existingFile(file), existingFolder(dir), outputFile(file), outputFile(join(dir, "new"))]).toEqual([
      file,
      dir,
      file,
      join(dir, "new"),
    ]);
    expect(() => existingFile(join(dir, "b"))).toThrow(`no such file (looked in ${process.cwd()})`);
    expect(() => existingFile(dir)).toThrow("is a folder, expected a file");
    expect(() => existingFolder(join(dir, "b"))).toThrow(`no such folder (looked in ${process.cwd()})`);
    expect(() => existingFolder(file)).toThrow("is a file, expected a folder");
    expect(() => outputFile(dir)).toThrow("is a folder, expected a file");
    expect(() => outputFile(join(dir, "b", "c"))).toThrow(`its folder does not exist: ${join(dir, "b")}`);
  });

  test("models", () => {
    const dir = mkdtempSync(join(tmpdir(), "heddle-flags-"));
    const [gguf, weights, folder] = [join(dir, "a.gguf"), join(dir, "a.safetensors"), join(dir, "b.gguf")];
    for (const file of [gguf, weights]) writeFileSync(file, "");
    mkdirSync(folder);
    expect([dir, folder, "org/name@v1"].map(modelFolder)).toEqual([dir, folder, "org/name@v1"]);
    expect([gguf, weights, "org/name"].map(modelPath)).toEqual([gguf, weights, "org/name"]);
    expect([weights, "org/name"].map(checkpointPath)).toEqual([weights, "org/name"]);
    for (const flag of [modelFolder, checkpointPath]) {
      expect(() => flag(gguf)).toThrow("is a GGUF file: heddle convert makes a model folder of it");
    }
    for (const name of ["folder/a.gguf", "folder/a.safetensors", "name"]) {
      expect(() => modelPath(name)).toThrow(`no such file or folder (looked in ${process.cwd()})`);
    }
  });

  test("--set adds up, and its value may hold anything", () => {
    expect(collectSet("rl.mu=0.1 * (step == 1)", collectSet("seed=2"))).toEqual(["seed=2", "rl.mu=0.1 * (step == 1)"]);
    for (const text of ["seed", "=1", "a b=1"]) {
      expect(() => collectSet(text)).toThrow("expected key=value, as in rl.steps=50");
    }
  });
});
