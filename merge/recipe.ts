// Recipes: what is merged from what, in mergekit's YAML. A recipe may be a source of another one.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Schedule } from "../config/schedule.js";
import { readYaml } from "../config/yaml-source.js";
import type { Dtype } from "../model/json.js";
import type { ParameterValue } from "./method.js";
import type { MethodName } from "./methods.js";
import { checkRecipe } from "./recipe-check.js";

/** A recipe that cannot be carried out. The message has a line for each mistake: FILE:LINE: KEY: expected X, got Y. */
export class RecipeError extends Error {
  override readonly name = "RecipeError";
}

export interface Recipe {
  readonly method: MethodName;
  /** Whose config, tokenizer and so on the result has, and what task vectors start from. */
  readonly base: ModelReference | null;
  /** From the first layer of the result to the last; `models:` is one slice of whole models. */
  readonly slices: readonly Slice[];
  /** Whether the slices are parts of models, named by layer ranges. */
  readonly isSliced: boolean;
  readonly parameters: Parameters;
  /** What is stored; null is what each tensor is stored as now. */
  readonly dtype: Dtype | null;
  readonly tokenizer: TokenizerSettings | null;
  /** A name of a template, "auto", or the template itself. */
  readonly chatTemplate: string | null;
}

export interface Slice {
  readonly sources: readonly SliceSource[];
  readonly parameters: Parameters;
}

export interface SliceSource {
  readonly model: ModelReference;
  /** Layers [begin, end) of the model; null is all. */
  readonly layerRange: readonly [number, number] | null;
  readonly parameters: Parameters;
}

/**
 * A model folder or the name of a model on the hub, with or without an adapter on it, or what another recipe makes, which is in a file of its own or (null)
 * in its place. `text` is how the recipe calls it.
 */
export type ModelReference = { readonly text: string } & (
  | { readonly kind: "folder"; readonly path: string; readonly adapter: string | null }
  | { readonly kind: "recipe"; readonly recipe: Recipe; readonly file: string | null }
);

/** Values by the name of the parameter. The first whose filter is part of a tensor's name counts for it. */
export type Parameters = Readonly<Record<string, readonly FilteredValue[]>>;

export interface FilteredValue {
  /** Part of a tensor's name; null is every tensor. */
  readonly filter: string | null;
  /** One value, the knots of a gradient over the layers, or an expression of layer and layers. */
  readonly value: ParameterValue | readonly ParameterValue[] | Schedule;
}

/** Which vocabulary the result has, see tokenizer-plan.ts. */
export interface TokenizerSettings {
  /** "union", "base", or the path of a model folder. */
  readonly source: string;
  /** Where the embeddings of single tokens come from, by token. */
  readonly tokens: Readonly<Record<string, TokenSettings>>;
  readonly padToMultipleOf: number | null;
}

export interface TokenSettings {
  /** Path of a model; its token's embedding by text or number; zeros; null: as for other tokens. */
  readonly source:
    | { readonly kind: "model"; readonly model: string }
    | {
        readonly kind: "model_token";
        readonly model: string;
        readonly token: string | null;
        readonly tokenId: number | null;
      }
    | { readonly kind: "zero" }
    | null;
  /** Whether models that have the token take this embedding too. */
  readonly force: boolean;
}

/**
 * Reads a recipe and the recipes it is made of; paths in it are relative to the working directory. No model is opened.
 * @param set overrides such as "parameters.eta=0.5", whose values are YAML
 * @throws RecipeError that lists every mistake
 */
export async function readRecipe(path: string, set: readonly string[] = []): Promise<Recipe> {
  return (await readRecipeFile(path, set, [])).recipe;
}

/** As `readRecipe`, with the text of the file. `within`: the recipes that led here, outermost first. */
export async function readRecipeFile(
  path: string,
  set: readonly string[],
  within: readonly string[],
): Promise<{ recipe: Recipe; text: string }> {
  if (within.some((outer) => resolve(outer) === resolve(path))) {
    throw new RecipeError(`${path}: is a source of itself: ${[...within, path].join(" -> ")}`);
  }
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    const problem = error.code === "ENOENT" ? "no such file" : error.message;
    throw new RecipeError(`${path}: expected a recipe, got: ${problem}`);
  });
  const source = readYaml(path, text, set);
  if (source.errors.length > 0) throw new RecipeError(source.errors.join("\n"));
  const { recipe, mistakes } = await checkRecipe(source.value, (inner) =>
    readRecipeFile(inner, [], [...within, path]).then((found) => found.recipe),
  );
  const lines = [...new Set(source.report([...source.duplicates, ...mistakes])), ...source.badSettings];
  if (recipe === null || lines.length > 0) throw new RecipeError(lines.join("\n"));
  return { recipe, text };
}
