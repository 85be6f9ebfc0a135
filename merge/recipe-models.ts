// What a recipe calls a model: a folder, with or without an adapter, a recipe file, or a recipe in its place.
import { describe, type KeyPath } from "../config/yaml-source.js";
import type { ModelReference, Recipe } from "./recipe.js";
import { type Check, checkKeys, isMapping, type Mapping } from "./recipe-notes.js";

/** The reference, or null where it is noted as a mistake. */
export async function checkModel(value: unknown, path: KeyPath, check: Check): Promise<ModelReference | null> {
  const wrong = (problem: string) => {
    check.note(path, problem);
    return null;
  };
  const within = (recipe: Recipe, file: string | null, text: string): ModelReference | null => {
    const { tokenizer, chatTemplate } = recipe;
    if (tokenizer === null && chatTemplate === null) return { kind: "recipe", recipe, file, text };
    return wrong("has a tokenizer or chat_template of its own: give it in the outermost recipe");
  };
  if (isMapping(value) && "merge_method" in value) {
    const recipe = await check.checkInner(value, path);
    return recipe && within(recipe, null, `a ${recipe.method} recipe`);
  }
  if (isMapping(value) && "model" in value) return checkLongForm(value, path, check);
  if (typeof value !== "string" || value === "") {
    return wrong(`expected a model folder, a recipe file or a recipe, got ${describe(value)}`);
  }
  if (/\.ya?ml$/.test(value)) {
    try {
      return within(await check.readRecipe(value), value, value);
    } catch (error) {
      return wrong(`is a recipe that cannot be read:\n${(error as Error).message}`);
    }
  }
  const [folder, adapter, ...more] = value.split("+");
  if (more.length > 0 || folder === "" || adapter === "") {
    return wrong(`expected MODEL or MODEL+ADAPTER, got ${describe(value)}`);
  }
  return { kind: "folder", path: folder!, adapter: adapter ?? null, text: value };
}

/** MODEL+ADAPTER as mergekit's older recipes spell it: {model: {path: MODEL}, lora: {path: ADAPTER}}. */
async function checkLongForm(value: Mapping, path: KeyPath, check: Check): Promise<ModelReference | null> {
  checkKeys(value, ["model", "lora"], check.note, path);
  const model = checkPath(value.model, [...path, "model"], check);
  const isAlone = value.lora === undefined || value.lora === null;
  const adapter = isAlone ? null : checkPath(value.lora, [...path, "lora"], check);
  if (model === null || (adapter === null && !isAlone)) return null;
  return { kind: "folder", path: model, adapter, text: adapter === null ? model : `${model}+${adapter}` };
}

/** A folder or a name on the hub, or {path: FOLDER}, or {path: ORG/NAME, revision: REVISION}. */
function checkPath(value: unknown, path: KeyPath, { note }: Check): string | null {
  if (isMapping(value)) checkKeys(value, ["path", "revision"], note, path);
  const [folder, revision = null] = isMapping(value) ? [value.path, value.revision] : [value];
  if (typeof folder !== "string" || folder === "") {
    note(path, `expected a folder, got ${describe(folder)}`);
    return null;
  }
  return revision === null ? folder : `${folder}@${revision}`;
}

/** Whether two references are to the same model. Recipes that stand in another's place are all models of their own. */
export function isSameModel(a: ModelReference, b: ModelReference): boolean {
  if (a === b) return true;
  return a.text === b.text && (a.kind === "folder" ? b.kind === "folder" : b.kind === "recipe" && a.file === b.text);
}
