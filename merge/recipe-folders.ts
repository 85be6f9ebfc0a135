// The folders that a recipe names: models of the hub are found, and what is not there is told, all of it at once.
import { stat } from "node:fs/promises";
import { HubError } from "../hub/errors.js";
import { findModel } from "../hub/resolve.js";
import { type ModelReference, type Recipe, RecipeError } from "./recipe.js";

/**
 * The recipe, and those within it, with folders as the paths of its models, adapters and tokenizer. Throws a RecipeError
 * with a line for each that is none.
 */
export async function withFolders(
  recipe: Recipe,
  find: (name: string) => Promise<string> = (name) => findModel(name),
): Promise<Recipe> {
  const folders = new Map<string, string>();
  const problems: string[] = [];
  for (const name of new Set(foldersOf(recipe))) {
    const path = await find(name).catch((error: unknown) => {
      if (!(error instanceof HubError)) throw error;
      problems.push(`${name}: ${error.message}`);
      return null;
    });
    if (path === null) continue;
    const found = await stat(path).catch(() => null);
    if (!found) problems.push(`${name}: no such folder`);
    else if (!found.isDirectory()) problems.push(`${name}: is a file, expected a folder`);
    folders.set(name, path);
  }
  if (problems.length > 0) throw new RecipeError(problems.join("\n"));
  return inFolders(recipe, (name) => folders.get(name)!);
}

/** In the order in which they are opened. */
function foldersOf(recipe: Recipe): string[] {
  const models = modelsOf(recipe);
  const names = models.flatMap((model) =>
    model.kind === "recipe"
      ? foldersOf(model.recipe)
      : [model.path, ...(model.adapter === null ? [] : [model.adapter])],
  );
  return [...names, ...tokenizerFolder(recipe)];
}

function modelsOf({ base, slices }: Recipe): ModelReference[] {
  return [...(base ? [base] : []), ...slices.flatMap(({ sources }) => sources.map(({ model }) => model))];
}

/** The folder of a tokenizer that is none of the models'. */
function tokenizerFolder(recipe: Recipe): string[] {
  const { tokenizer } = recipe;
  if (tokenizer === null || ["union", "base"].includes(tokenizer.source)) return [];
  return modelsOf(recipe).some(({ text }) => text === tokenizer.source) ? [] : [tokenizer.source];
}

function inFolders(recipe: Recipe, folderOf: (name: string) => string): Recipe {
  const place = (model: ModelReference): ModelReference => {
    if (model.kind === "recipe") return { ...model, recipe: inFolders(model.recipe, folderOf) };
    return { ...model, path: folderOf(model.path), adapter: model.adapter && folderOf(model.adapter) };
  };
  const slices = recipe.slices.map((slice) => ({
    ...slice,
    sources: slice.sources.map((source) => ({ ...source, model: place(source.model) })),
  }));
  const [source] = tokenizerFolder(recipe);
  const { base, tokenizer } = recipe;
  return {
    ...recipe,
    base: base && place(base),
    slices,
    tokenizer: tokenizer && source !== undefined ? { ...tokenizer, source: folderOf(source) } : tokenizer,
  };
}
