/** The model of a stage, saved again after a process that was killed while it saved it. */
import { cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { saveStageModel } from "../../distill/training.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { fixture } from "../model/golden.js";
import { modelFiles } from "../pipelines/training-run.js";
import { newFolder } from "./stage.js";

const student = fixture("arithmetic/student");
let model: LoadedModel;
beforeAll(async () => {
  model = await loadModel(student);
});
afterAll(() => disposeModel(model));

/** Saves the model in a folder that holds what the kill left; it must be whole, and alone. */
async function expectSaved(dir: string): Promise<void> {
  await saveStageModel(dir, model);
  expect(new Set(readdirSync(dir))).toEqual(new Set(modelFiles));
  disposeModel(await loadModel(dir));
}

test.each([0, 1, 5, 6])("killed when %i of its 6 files were in place", async (moved) => {
  const dir = await newFolder();
  mkdirSync(join(dir, "result.partial"));
  for (const [i, name] of modelFiles.entries()) {
    cpSync(join(student, name), join(dir, i < moved ? "" : "result.partial", name));
  }
  await expectSaved(dir);
});

test("killed when its files were being written", async () => {
  const dir = await newFolder();
  mkdirSync(join(dir, ".result.partial.partial"));
  writeFileSync(join(dir, ".result.partial.partial", "model.safetensors"), "half");
  await expectSaved(dir);
  expect(existsSync(join(dir, ".result.partial.partial"))).toBe(false);
});
