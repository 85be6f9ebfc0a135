// From YAML's plain data to a Recipe: every key, type, range and count is checked, and every mistake is noted.
import { nearest } from "../config/did-you-mean.js";
import { describe, type KeyPath, type Mistake } from "../config/yaml-source.js";
import { DTYPES, type Dtype } from "../model/json.js";
import { METHODS, type MethodName } from "./methods.js";
import type { Recipe } from "./recipe.js";
import { checkModel } from "./recipe-models.js";
import { checkModules } from "./recipe-modules.js";
import { type Check, checkKeys, isMapping, type Note } from "./recipe-notes.js";
import { checkParameters } from "./recipe-parameters.js";
import { checkGlobalParameters, checkSlices } from "./recipe-sources.js";
import { checkTokenizer } from "./recipe-tokenizer.js";

const KEYS =
  "merge_method models slices modules base_model parameters dtype out_dtype tokenizer tokenizer_source chat_template".split(
    " ",
  );

/** The recipe, null where a mistake leaves none, and the mistakes, with paths from the top of the file. */
export async function checkRecipe(
  value: unknown,
  readRecipe: Check["readRecipe"],
): Promise<{ recipe: Recipe | null; mistakes: Mistake[] }> {
  const mistakes: Mistake[] = [];
  const recipe = await checkAt(value, [], mistakes, readRecipe);
  return { recipe, mistakes };
}

async function checkAt(
  value: unknown,
  at: KeyPath,
  mistakes: Mistake[],
  readRecipe: Check["readRecipe"],
): Promise<Recipe | null> {
  const note: Note = (path, problem) => {
    mistakes.push({ path: [...at, ...path], problem });
  };
  if (!isMapping(value)) {
    note([], `expected a recipe, a mapping with merge_method, got ${describe(value)}`);
    return null;
  }
  checkKeys(value, KEYS, note);
  // A key without a value is as none.
  const given = Object.fromEntries(Object.entries(value).filter(([, one]) => one !== null));
  const method = checkMethod(given.merge_method, note);
  const check: Check = {
    method,
    note,
    checkInner: (inner, path) => checkAt(inner, [...at, ...path], mistakes, readRecipe),
    readRecipe,
  };
  const base = given.base_model === undefined ? null : await checkModel(given.base_model, ["base_model"], check);
  const isBaseWrong = base === null && given.base_model !== undefined;
  if (method !== null && METHODS[method].base === "required" && given.base_model === undefined) {
    note(["base_model"], `expected a model, which ${method} starts from, got nothing`);
  }
  const parameters = await checkParameters(given.parameters, ["parameters"], "global", check);
  const above = { base: isBaseWrong ? undefined : base, parameters: [parameters] };
  const { slices, isSliced } =
    given.modules === undefined
      ? { slices: await checkSlices(given, [], above, check), isSliced: given.slices !== undefined }
      : await checkModules(given, above, check);
  checkGlobalParameters(parameters, slices, check);
  const [dtype, outDtype] = (["dtype", "out_dtype"] as const).map((key) => checkDtype(given[key], key, note));
  const tokenizer = checkTokenizer(given, note);
  const chatTemplate = checkChatTemplate(given.chat_template, note);
  return (
    method && {
      method,
      base,
      slices,
      isSliced,
      parameters,
      dtype: outDtype ?? dtype ?? null,
      tokenizer,
      chatTemplate,
    }
  );
}

function checkMethod(name: unknown, note: Note): MethodName | null {
  if (typeof name === "string" && Object.hasOwn(METHODS, name)) return name as MethodName;
  const names = Object.keys(METHODS);
  const near = typeof name === "string" ? nearest(name, names) : undefined;
  if (near !== undefined) note(["merge_method"], `unknown method; did you mean ${near}?`);
  else note(["merge_method"], `expected one of ${names.join(", ")}, got ${describe(name)}`);
  return null;
}

function checkChatTemplate(value: unknown, note: Note): string | null {
  if (value === undefined) return null;
  if (typeof value === "string" && value !== "") return value;
  note(["chat_template"], `expected a name of a template, auto, or the template, got ${describe(value)}`);
  return null;
}

function checkDtype(value: unknown, key: string, note: Note): Dtype | null {
  if (value === undefined) return null;
  if (DTYPES.includes(value as Dtype)) return value as Dtype;
  note([key], `expected one of ${DTYPES.join(", ")}, got ${describe(value)}`);
  return null;
}
