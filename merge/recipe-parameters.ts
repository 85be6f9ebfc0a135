// The parameters of a recipe: one value, a gradient over the layers, an expression, or a list of values with filters.
import { nearest } from "../config/did-you-mean.js";
import { compileSchedule, type Schedule, ScheduleError } from "../config/schedule.js";
import { describe, type KeyPath } from "../config/yaml-source.js";
import type { ParameterSpec, ParameterSpecs, ParameterValue } from "./method.js";
import { METHODS, type MethodName } from "./methods.js";
import type { FilteredValue, Parameters } from "./recipe.js";
import { type Check, checkKeys, isMapping, type Mapping, type Note } from "./recipe-notes.js";

/** Where parameters stand: with a model, with a slice, or for the whole recipe. */
export type ParameterLevel = "model" | "slice" | "global";

/** What a model's parameters may be is what the method has for each model; above, all that it has may stand. */
export async function checkParameters(
  value: unknown,
  path: KeyPath,
  level: ParameterLevel,
  { method, note }: Pick<Check, "method" | "note">,
): Promise<Parameters> {
  if (value === undefined || value === null || method === null) return {};
  if (!isMapping(value)) {
    note(path, `expected a mapping of parameters, got ${describe(value)}`);
    return {};
  }
  const { global, model } = METHODS[method];
  const known: ParameterSpecs = level === "model" ? model : { ...global, ...model };
  const checked: [string, readonly FilteredValue[]][] = [];
  for (const [key, given] of Object.entries(value)) {
    const spec = Object.hasOwn(known, key) ? known[key] : undefined;
    if (spec === undefined) note([...path, key], unknownParameter(key, method, level, known));
    else checked.push([key, await checkValues(given, [...path, key], spec, note)]);
  }
  return Object.fromEntries(checked);
}

function unknownParameter(key: string, method: MethodName, level: ParameterLevel, known: ParameterSpecs): string {
  if (level === "model" && Object.hasOwn(METHODS[method].global, key)) {
    return "is a parameter of the whole merge: give it under parameters at the top";
  }
  const near = nearest(key, Object.keys(known));
  if (near !== undefined) return `unknown parameter of ${method}; did you mean ${near}?`;
  const names = Object.keys(known).join(", ");
  return `unknown parameter of ${method}; ${names === "" ? "it has none here" : `expected one of ${names}`}`;
}

/** A list of mappings, or one, is values with filters; any other list is a gradient. */
async function checkValues(value: unknown, path: KeyPath, spec: ParameterSpec, note: Note): Promise<FilteredValue[]> {
  if (isMapping(value)) return checkFiltered(value, path, spec, note);
  if (!Array.isArray(value) || !value.some(isMapping)) return checkValue(value, path, null, spec, note);
  const values: FilteredValue[] = [];
  for (const [i, one] of value.entries()) {
    const here = [...path, i];
    if (isMapping(one)) values.push(...(await checkFiltered(one, here, spec, note)));
    else note(here, `expected a mapping of filter and value, as beside it, got ${describe(one)}`);
  }
  return values;
}

async function checkFiltered(value: Mapping, path: KeyPath, spec: ParameterSpec, note: Note): Promise<FilteredValue[]> {
  checkKeys(value, ["filter", "value"], note, path);
  const { filter = null } = value;
  if (filter !== null && typeof filter !== "string") {
    note([...path, "filter"], `expected a part of a tensor's name, got ${describe(filter)}`);
    return [];
  }
  return checkValue(value.value, [...path, "value"], filter === "*" ? null : filter, spec, note);
}

async function checkValue(
  value: unknown,
  path: KeyPath,
  filter: string | null,
  spec: ParameterSpec,
  note: Note,
): Promise<FilteredValue[]> {
  if (Array.isArray(value)) {
    if (value.length === 0) note(path, `expected ${expected(spec)}, got an empty list`);
    const fine = value.map((knot, i) => checkScalar(knot, [...path, i], spec, note));
    return fine.every(Boolean) && value.length > 0 ? [{ filter, value: value as ParameterValue[] }] : [];
  }
  if (typeof value === "string" && (spec.type === "number" || spec.type === "integer")) {
    try {
      return [{ filter, value: await compileExpression(value) }];
    } catch (error) {
      note(path, `expected ${expected(spec)} or an expression of layer and layers, got: ${(error as Error).message}`);
      return [];
    }
  }
  return checkScalar(value, path, spec, note) ? [{ filter, value: value as ParameterValue }] : [];
}

/** Throws for variables other than layer and layers, too. */
async function compileExpression(text: string): Promise<Schedule> {
  const other = /\b(step|steps|iteration)\b/.exec(text)?.[0];
  if (other !== undefined) throw new ScheduleError(`"${text}": ${other} has no value in a merge`);
  return compileSchedule(text);
}

function checkScalar(value: unknown, path: KeyPath, spec: ParameterSpec, note: Note): boolean {
  if (isAllowed(value, spec)) return true;
  note(path, `expected ${expected(spec)}, got ${describe(value)}`);
  return false;
}

/** Whether a value has the type and the range of a parameter. */
export function isAllowed(value: unknown, { type, min, max, choices }: ParameterSpec): boolean {
  if (type === "boolean") return typeof value === "boolean";
  if (type === "choice") return typeof value === "string" && choices!.includes(value);
  if (typeof value !== "number" || !Number.isFinite(value)) return false;
  if (type === "integer" && !Number.isInteger(value)) return false;
  return value >= (min ?? Number.NEGATIVE_INFINITY) && value <= (max ?? Number.POSITIVE_INFINITY);
}

/** What a parameter may be, in words. */
export function expected({ type, min, max, choices }: ParameterSpec): string {
  if (type === "boolean") return "true or false";
  if (type === "choice") return `one of ${choices!.join(", ")}`;
  const noun = type === "integer" ? "a whole number" : "a number";
  if (min !== undefined && max !== undefined) return `${noun} from ${min} to ${max}`;
  if (min !== undefined) return `${noun}, ${min} or more`;
  return max === undefined ? noun : `${noun}, ${max} or less`;
}
