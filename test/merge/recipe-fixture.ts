// Recipes of a test, in a folder of their own.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readRecipe } from "../../merge/recipe.js";

/** Writes the recipe, and the others by their names, and gives what reading it complains of, one string for each line. */
export async function mistakesOf(
  recipe: string,
  { set = [], others = {} }: { set?: readonly string[]; others?: Readonly<Record<string, string>> } = {},
): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "recipe-"));
  const here = (text: string) => text.replaceAll("HERE", folder);
  for (const [name, text] of Object.entries({ "r.yml": recipe, ...others })) {
    writeFileSync(join(folder, name), here(text));
  }
  try {
    await readRecipe(join(folder, "r.yml"), set);
    return [];
  } catch (error) {
    if ((error as Error).name !== "RecipeError") throw error;
    return (error as Error).message.replaceAll(`${folder}/`, "").split("\n");
  } finally {
    rmSync(folder, { recursive: true });
  }
}
