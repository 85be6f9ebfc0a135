// From YAML's plain data to a Recipe: every key, type, range and count is checked, and every mistake is noted.
import { nearest } from "../config/did-you-mean.js";
import { describe, type KeyPath, type Mistake } from "../config/yaml-source.js";
import { DTYPES, type Dtype } from "../model/json.js";
import { METHODS, type MethodName } from "./methods.js";
import type { ModelReference, Recipe, Slice, SliceSource } from "./recipe.js";
import { checkParameters, type ParameterScope } from "./recipe-parameters.js";
import { checkTokenizer } from "./recipe-tokenizer.js";

/** Reads the recipe in a file, for a source that names one. */
export type ReadRecipe = (path: string) => Promise<Recipe>;

export type Mapping = Readonly<Record<string, unknown>>;

export const isMapping = (value: unknown): value is Mapping =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const KEYS =
  "merge_method models slices base_model parameters dtype out_dtype tokenizer tokenizer_source chat_template".split(
    " ",
  );

/** The recipe, null where a mistake leaves none, and the mistakes, with paths from the top of the file. */
export async function checkRecipe(
  value: unknown,
  readRecipe: ReadRecipe,
): Promise<{ recipe: Recipe | null; mistakes: Mistake[] }> {
  const mistakes: Mistake[] = [];
  const recipe = await checkAt(value, [], { mistakes, readRecipe });
  return { recipe, mistakes };
}

interface Context {
  readonly mistakes: Mistake[];
  readonly readRecipe: ReadRecipe;
}

async function checkAt(value: unknown, at: KeyPath, context: Context): Promise<Recipe | null> {
  const note = (path: KeyPath, problem: string) => {
    context.mistakes.push({ path: [...at, ...path], problem });
  };
  if (!isMapping(value)) {
    note([], `expected a recipe, a mapping with merge_method, got ${describe(value)}`);
    return null;
  }
  checkKeys(value, KEYS, note);
  const { merge_method: name } = value;
  if (typeof name !== "string" || !Object.hasOwn(METHODS, name)) {
    const near = typeof name === "string" ? nearest(name, Object.keys(METHODS)) : undefined;
    const hint = near === undefined ? `expected one of ${Object.keys(METHODS).join(", ")}` : `did you mean ${near}?`;
    note(["merge_method"], `${hint.startsWith("did") ? "unknown method" : "unknown method"}; ${hint}`);
    return null;
  }
  const method = name as MethodName;
  const scope: ParameterScope = { method, note: () => {} };
  const base = value.base_model === undefined ? null : await checkModel(value.base_model, ["base_model"], at, context);
  const parameters = await checkParameters(value.parameters, ["parameters"], "global", { ...scope, note });
  const slices = await checkSlices(value, at, context, { ...scope, note });
  checkCounts(method, base, value, slices, note);
  checkRequired(method, base, parameters, slices, note);
  const dtypes = (["dtype", "out_dtype"] as const).map((key) => checkDtype(value[key], key, note));
  return {
    method,
    base,
    slices,
    isSliced: value.slices !== undefined,
    parameters,
    dtype: dtypes[1] ?? dtypes[0] ?? null,
    tokenizer: checkTokenizer(value, note),
    chatTemplate: checkText(
      value.chat_template,
      ["chat_template"],
      "a name of a template, auto, or the template",
      note,
    ),
  };
}

export type Note = (path: KeyPath, problem: string) => void;

/** Notes keys that are not known. */
export function checkKeys(value: Mapping, known: readonly string[], note: Note, at: KeyPath = []): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const near = nearest(key, known);
    note(
      [...at, key],
      `unknown key; ${near === undefined ? `expected one of ${known.join(", ")}` : `did you mean ${near}?`}`,
    );
  }
}

function checkText(value: unknown, path: KeyPath, expected: string, note: Note): string | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "string" && value !== "") return value;
  note(path, `expected ${expected}, got ${describe(value)}`);
  return null;
}

function checkDtype(value: unknown, key: string, note: Note): Dtype | null {
  if (value === undefined || value === null) return null;
  if (DTYPES.includes(value as Dtype)) return value as Dtype;
  note([key], `expected one of ${DTYPES.join(", ")}, got ${describe(value)}`);
  return null;
}

async function checkSlices(value: Mapping, at: KeyPath, context: Context, scope: ParameterScope): Promise<Slice[]> {
  const { note } = scope;
  const { models, slices } = value;
  if ((models === undefined) === (slices === undefined)) {
    note(
      models === undefined ? [] : ["slices"],
      `expected either models or slices, got ${models === undefined ? "neither" : "both"}`,
    );
    return [];
  }
  if (models !== undefined) {
    return [{ sources: await checkSources(models, ["models"], false, at, context, scope), parameters: {} }];
  }
  if (!Array.isArray(slices) || slices.length === 0) {
    note(["slices"], `expected a list of slices, got ${Array.isArray(slices) ? "an empty list" : describe(slices)}`);
    return [];
  }
  const checked: Slice[] = [];
  for (const [i, slice] of slices.entries()) {
    const path = ["slices", i] as const;
    if (!isMapping(slice)) {
      note(path, `expected a mapping with sources, got ${describe(slice)}`);
      continue;
    }
    checkKeys(slice, ["sources", "parameters", "base_model"], note, path);
    if (slice.base_model !== undefined) note([...path, "base_model"], "is the same for all slices: give it at the top");
    checked.push({
      sources: await checkSources(slice.sources, [...path, "sources"], true, at, context, scope),
      parameters: await checkParameters(slice.parameters, [...path, "parameters"], "slice", scope),
    });
  }
  return checked;
}

async function checkSources(
  value: unknown,
  path: KeyPath,
  isSlice: boolean,
  at: KeyPath,
  context: Context,
  scope: ParameterScope,
): Promise<SliceSource[]> {
  const { note } = scope;
  if (!Array.isArray(value) || value.length === 0) {
    note(path, `expected a list of models, got ${Array.isArray(value) ? "an empty list" : describe(value)}`);
    return [];
  }
  const sources: SliceSource[] = [];
  for (const [i, source] of value.entries()) {
    const here = [...path, i];
    if (!isMapping(source)) {
      note(here, `expected a mapping with model, got ${describe(source)}`);
      continue;
    }
    checkKeys(source, ["model", "parameters", ...(isSlice ? ["layer_range"] : [])], note, here);
    const model = await checkModel(source.model, [...here, "model"], at, context);
    const layerRange = isSlice ? checkRange(source.layer_range, [...here, "layer_range"], note) : null;
    const parameters = await checkParameters(source.parameters, [...here, "parameters"], "model", scope);
    if (model !== null) sources.push({ model, layerRange, parameters });
  }
  const lengths = sources.map(({ layerRange }) => (layerRange ? layerRange[1] - layerRange[0] : 0));
  if (lengths.some((length) => length !== lengths[0])) {
    note(path, `expected layer ranges of one length, got ${lengths.join(", ")} layers`);
  }
  return sources;
}

function checkRange(value: unknown, path: KeyPath, note: Note): readonly [number, number] | null {
  if (
    Array.isArray(value) &&
    value.length === 2 &&
    value.every((x) => Number.isInteger(x) && x >= 0) &&
    value[0] < value[1]
  ) {
    return [value[0], value[1]];
  }
  const got = Array.isArray(value) ? `[${value.join(", ")}]` : describe(value);
  note(path, `expected [first layer, layer after the last], got ${got}`);
  return null;
}

async function checkModel(
  value: unknown,
  path: KeyPath,
  at: KeyPath,
  context: Context,
): Promise<ModelReference | null> {
  const note = (problem: string) => {
    context.mistakes.push({ path: [...at, ...path], problem });
    return null;
  };
  if (isMapping(value) && "merge_method" in value) {
    const recipe = await checkAt(value, [...at, ...path], context);
    return recipe && { kind: "recipe", recipe, text: `a ${recipe.method} recipe` };
  }
  if (typeof value !== "string" || value === "") {
    return note(`expected a model folder, a recipe file or a recipe, got ${describe(value)}`);
  }
  if (/\.ya?ml$/.test(value)) {
    try {
      return { kind: "recipe", recipe: await context.readRecipe(value), text: value };
    } catch (error) {
      return note(`is a recipe that cannot be read:\n${(error as Error).message}`);
    }
  }
  const [path_, adapter, ...more] = value.split("+");
  if (more.length > 0 || path_ === "" || adapter === "")
    return note(`expected MODEL or MODEL+ADAPTER, got ${describe(value)}`);
  return { kind: "folder", path: path_!, adapter: adapter ?? null, text: value };
}

/** Whether two references are to the same model. */
export const isSameModel = (a: ModelReference, b: ModelReference): boolean =>
  a === b || (a.kind === "folder" && a.text === b.text);

function checkCounts(
  method: MethodName,
  base: ModelReference | null,
  value: Mapping,
  slices: readonly Slice[],
  note: Note,
): void {
  const { base: role, minModels = 1, maxModels = Number.POSITIVE_INFINITY } = METHODS[method];
  if (role === "required" && value.base_model === undefined) {
    note(["base_model"], `expected a model, which ${method} starts from, got nothing`);
  }
  for (const [i, { sources }] of slices.entries()) {
    if (sources.length === 0) continue;
    const count = sources.filter(({ model }) => role === "none" || base === null || !isSameModel(model, base)).length;
    if (count >= minModels && count <= maxModels) continue;
    const wanted = minModels === maxModels || maxModels === 1 ? `${maxModels}` : `${minModels} or more`;
    const beside = role === "none" ? "" : " beside the base";
    const path = value.slices === undefined ? ["models"] : ["slices", i, "sources"];
    note(path, `${method} merges ${wanted} ${wanted === "1" ? "model" : "models"}${beside}, got ${count}`);
  }
}

/** Parameters without a default must be given for every model, or for the whole. */
function checkRequired(
  method: MethodName,
  base: ModelReference | null,
  parameters: Recipe["parameters"],
  slices: readonly Slice[],
  note: Note,
): void {
  const { global, model, base: role } = METHODS[method];
  const required = (specs: typeof global) => Object.keys(specs).filter((key) => specs[key]!.default === undefined);
  for (const key of required(global)) {
    if (parameters[key] || slices.every((slice) => slice.parameters[key])) continue;
    note(["parameters", key], `expected ${global[key]!.description}, which ${method} needs, got nothing`);
  }
  for (const key of required(model)) {
    for (const slice of slices) {
      for (const source of slice.sources) {
        if (role !== "none" && base !== null && isSameModel(source.model, base)) continue;
        if (source.parameters[key] ?? slice.parameters[key] ?? parameters[key]) continue;
        note(["parameters", key], `expected a value for ${source.model.text}, which ${method} needs, got nothing`);
      }
    }
  }
}
