// Small models of hand-made tensors, merged by recipes that stand in the test.
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Dtype, fromFloat32, type NamedTensor, openCheckpoint, writeCheckpoint } from "safetensors-ts";
import { makePlan } from "../../merge/make-plan.js";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { readRecipe } from "../../merge/recipe.js";

export type Tensors = Readonly<Record<string, NamedTensor | readonly number[]>>;

/** A tensor of a shape. */
export function tensor(shape: readonly number[], values: readonly number[], dtype: Dtype = "F32"): NamedTensor {
  const floats = Float32Array.from(values);
  const data = dtype === "I8" ? Uint8Array.from(values) : fromFloat32(floats, dtype as "F32" | "F16" | "BF16");
  return { name: "", dtype, shape, data };
}

/** A recipe of slices of one model each: [model, first layer, layer after the last]. */
export const stack = (...slices: readonly (readonly [string, number, number])[]) =>
  `merge_method: passthrough\nslices:\n${slices.map((slice) => `  - sources: [${sliceOf(...slice)}]\n`).join("")}`;

export const sliceOf = (model: string, begin: number, end: number) =>
  `{model: ${model}, layer_range: [${begin}, ${end}]}`;

export class Models {
  private constructor(readonly folder: string) {}

  static async create(): Promise<Models> {
    return new Models(await mkdtemp(join(tmpdir(), "plan-")));
  }

  remove(): Promise<void> {
    return rm(this.folder, { recursive: true });
  }

  /** Of a model or recipe of this folder; an absolute path stays. */
  path(name: string): string {
    return resolve(this.folder, name);
  }

  /** Writes a model; a config that is no text is written as JSON. */
  async write(name: string, tensors: Tensors, config: object | string = { model_type: "llama" }): Promise<void> {
    const named = Object.entries(tensors).map(([name, values]): NamedTensor => {
      const full = Array.isArray(values) ? tensor([values.length], values) : (values as NamedTensor);
      return { ...full, name };
    });
    await mkdir(this.path(name), { recursive: true });
    await writeCheckpoint(this.path(name), named);
    await writeFile(join(this.path(name), "config.json"), typeof config === "string" ? config : JSON.stringify(config));
  }

  /** Writes a recipe; paths in it that begin with $ are of this folder's models and recipes. */
  async recipe(text: string, name = "r.yml"): Promise<string> {
    await writeFile(this.path(name), text.replaceAll("$", `${this.folder}/`));
    return this.path(name);
  }

  async plan(text: string, seed = 0) {
    return makePlan(await readRecipe(await this.recipe(text)), { seed });
  }

  /** What planning complains of, without the folder. */
  async problem(text: string): Promise<string> {
    try {
      await this.plan(text);
      return "";
    } catch (error) {
      return `${(error as Error).name}: ${(error as Error).message.replaceAll(`${this.folder}/`, "")}`;
    }
  }

  /** Merges on this thread: the tensors as numbers, and the text of config.json. */
  async merge(text: string, out = "out", seed = 0): Promise<{ tensors: Record<string, number[]>; config: string }> {
    const options = { recipe: await this.recipe(text), out: this.path(out), overwrite: true, workers: 0, seed };
    await mergeRecipe(options);
    const config = await readFile(join(this.path(out), "config.json"), "utf8");
    return { tensors: await this.read(out), config };
  }

  async read(name: string): Promise<Record<string, number[]>> {
    const checkpoint = await openCheckpoint(this.path(name));
    const tensors = checkpoint.tensors.map(async ({ name, dtype }): Promise<[string, number[]]> => {
      if (dtype === "I8") return [name, [...(await checkpoint.read(name))]];
      return [name, [...(await checkpoint.readFloat32(name))]];
    });
    const entries = await Promise.all(tensors);
    await checkpoint.close();
    return Object.fromEntries(entries);
  }
}
