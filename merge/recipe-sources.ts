// The models or slices of a recipe: what they are, how many, and the parameters that each of them needs.
import { describe, type KeyPath } from "../config/yaml-source.js";
import type { ParameterSpecs } from "./method.js";
import { METHODS } from "./methods.js";
import type { ModelReference, Parameters, Slice, SliceSource } from "./recipe.js";
import { checkModel, isSameModel } from "./recipe-models.js";
import { type Check, checkKeys, isMapping, type Mapping, type Note } from "./recipe-notes.js";
import { checkParameters } from "./recipe-parameters.js";

/** What stands above the models of a recipe. */
export interface Above {
  /** Undefined where it is given, but wrong. */
  readonly base: ModelReference | null | undefined;
  /** From the nearest level to the top. */
  readonly parameters: readonly Parameters[];
}

/** The slices at a path of a recipe; whole models are one slice. None where neither is given as it should be. */
export async function checkSlices(
  { models, slices }: Mapping,
  at: KeyPath,
  above: Above,
  check: Check,
): Promise<Slice[]> {
  const { note } = check;
  if ((models === undefined) === (slices === undefined)) {
    const [path, got] = models === undefined ? [at, "neither"] : [[...at, "slices"], "both"];
    note(path, `expected either models or slices, got ${got}`);
    return [];
  }
  if (models !== undefined) {
    const sources = await checkSources(models, [...at, "models"], false, above, check);
    return sources.length > 0 ? [{ sources, parameters: {} }] : [];
  }
  if (!isFilled(slices)) {
    note([...at, "slices"], `expected a list of slices, got ${describeList(slices)}`);
    return [];
  }
  const checked: Slice[] = [];
  for (const [i, slice] of slices.entries()) {
    const path = [...at, "slices", i];
    if (!isMapping(slice)) {
      note(path, `expected a mapping with sources, got ${describe(slice)}`);
      continue;
    }
    // mergekit reads residual_weight, and does nothing with it.
    checkKeys(slice, ["sources", "parameters", "base_model", "residual_weight"], note, path);
    if (slice.base_model !== undefined) note([...path, "base_model"], "is the same for all slices: give it at the top");
    const parameters = await checkParameters(slice.parameters, [...path, "parameters"], "slice", check);
    const within = { ...above, parameters: [parameters, ...above.parameters] };
    const sources = await checkSources(slice.sources, [...path, "sources"], true, within, check);
    checked.push({ sources, parameters });
  }
  return checked;
}

const isFilled = (value: unknown): value is readonly unknown[] => Array.isArray(value) && value.length > 0;

const describeList = (value: unknown): string => (Array.isArray(value) ? "an empty list" : describe(value));

async function checkSources(
  value: unknown,
  path: KeyPath,
  isSliced: boolean,
  above: Above,
  check: Check,
): Promise<SliceSource[]> {
  const { note } = check;
  if (!isFilled(value)) {
    note(path, `expected a list of models, got ${describeList(value)}`);
    return [];
  }
  const sources: SliceSource[] = [];
  for (const [i, source] of value.entries()) {
    const here = [...path, i];
    if (!isMapping(source)) {
      note(here, `expected a mapping with model, got ${describe(source)}`);
      continue;
    }
    checkKeys(source, ["model", "parameters", ...(isSliced ? ["layer_range"] : [])], note, here);
    const model = await checkModel(source.model, [...here, "model"], check);
    const layerRange = isSliced ? checkRange(source.layer_range, [...here, "layer_range"], note) : null;
    const parameters = await checkParameters(source.parameters, [...here, "parameters"], "model", check);
    if (model === null) continue;
    sources.push({ model, layerRange, parameters });
    checkModelParameters(model, [...here, "parameters"], [parameters, ...above.parameters], above.base, check);
  }
  if (sources.length === value.length) checkCount(sources, path, above.base, check);
  const lengths = sources.flatMap(({ layerRange }) => (layerRange ? [layerRange[1] - layerRange[0]] : []));
  if (lengths.some((length) => length !== lengths[0])) {
    note(path, `expected layer ranges of one length, got ${lengths.join(", ")} layers`);
  }
  return sources;
}

function checkRange(value: unknown, path: KeyPath, note: Note): readonly [number, number] | null {
  if (Array.isArray(value) && value.length === 2 && value.every((x) => Number.isInteger(x) && x >= 0)) {
    const [begin, end] = value as [number, number];
    if (begin < end) return [begin, end];
  }
  const got = Array.isArray(value) ? `[${value.join(", ")}]` : describe(value);
  note(path, `expected [first layer, layer after the last], got ${got}`);
  return null;
}

/** Parameters without a default must be given for every model but the base, here or above. */
function checkModelParameters(
  model: ModelReference,
  path: KeyPath,
  levels: readonly Parameters[],
  base: Above["base"],
  { method, note }: Check,
): void {
  if (method === null) return;
  const { model: specs, base: role } = METHODS[method];
  if (role !== "none" && (base === undefined || (base !== null && isSameModel(model, base)))) return;
  for (const key of requiredKeys(specs)) {
    if (levels.some((level) => level[key])) continue;
    note([...path, key], `expected a value for ${model.text}, which ${method} needs, got nothing`);
  }
}

/** Parameters of the whole merge without a default must be given at the top, or with every slice. */
export function checkGlobalParameters(parameters: Parameters, slices: readonly Slice[], { method, note }: Check): void {
  if (method === null) return;
  const { global } = METHODS[method];
  for (const key of requiredKeys(global)) {
    if (parameters[key] || (slices.length > 0 && slices.every((slice) => slice.parameters[key]))) continue;
    note(["parameters", key], `expected a value (${global[key]!.description}), which ${method} needs, got nothing`);
  }
}

const requiredKeys = (specs: ParameterSpecs): string[] =>
  Object.keys(specs).filter((key) => specs[key]!.default === undefined);

/** Notes a number of models that the method cannot merge. Without the base that it needs, they cannot be counted. */
function checkCount(
  sources: readonly SliceSource[],
  path: KeyPath,
  base: Above["base"],
  { method, note }: Check,
): void {
  if (method === null) return;
  const { base: role, minModels = 1, maxModels = Number.POSITIVE_INFINITY } = METHODS[method];
  if (role !== "none" && (base === undefined || (role === "required" && base === null))) return;
  const besideBase = role === "none" ? null : (base ?? null);
  const count = sources.filter(({ model }) => besideBase === null || !isSameModel(model, besideBase)).length;
  if (count >= minModels && count <= maxModels) return;
  const wanted = minModels === maxModels || maxModels === 1 ? `${maxModels}` : `${minModels} or more`;
  const noun = wanted === "1" ? "model" : "models";
  note(path, `${method} merges ${wanted} ${noun}${besideBase ? " beside the base" : ""}, got ${count}`);
}
