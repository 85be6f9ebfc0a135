// The folders that a recipe names: whether they are there, all of them at once.
import { stat } from "node:fs/promises";
import { type ModelReference, type Recipe, RecipeError } from "./recipe.js";

/** Throws a RecipeError with a line for each model or adapter of the recipe, and of those within it, that is no folder. */
export async function checkFolders(recipe: Recipe): Promise<void> {
  const problems: string[] = [];
  for (const path of new Set(foldersOf(recipe))) {
    const found = await stat(path).catch(() => null);
    if (!found) problems.push(`${path}: no such folder; a model of the Hub must be downloaded first`);
    else if (!found.isDirectory()) problems.push(`${path}: is a file, expected a folder`);
  }
  if (problems.length > 0) throw new RecipeError(problems.join("\n"));
}

/** In the order in which they are opened. */
function foldersOf({ base, slices }: Recipe): string[] {
  return [...(base ? [base] : []), ...slices.flatMap(({ sources }) => sources.map(({ model }) => model))].flatMap(
    (model: ModelReference) =>
      model.kind === "recipe"
        ? foldersOf(model.recipe)
        : [model.path, ...(model.adapter === null ? [] : [model.adapter])],
  );
}
