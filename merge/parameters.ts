// What a parameter of a recipe is for one tensor: filters, gradients and expressions applied.
import type { ParameterSpec, ParameterSpecs, ParameterValue } from "./method.js";
import type { FilteredValue, Parameters } from "./recipe.js";
import { RecipeError } from "./recipe.js";
import { expected, isAllowed } from "./recipe-parameters.js";

/** A tensor, as parameters see it. */
export interface TensorContext {
  /** Its name in the result; for what each model has, in the model. */
  readonly name: string;
  /** Its layer, from 0, of the `layers` of its slice; 0 outside the layers, as in mergekit. */
  readonly layer: number;
  readonly layers: number;
  /** Where it is between the first layer (0) and the last (1) of its slice: 0 outside the layers, 1 in an only layer. */
  readonly depth: number;
}

/** The context of a tensor of layer `layer` (null: outside the layers) of a slice of `layers` layers. */
export function tensorContext(name: string, layer: number | null, layers: number): TensorContext {
  if (layer === null) return { name, layer: 0, layers, depth: 0 };
  return { name, layer, layers, depth: layers > 1 ? layer / (layers - 1) : 1 };
}

/**
 * Values of all parameters of the specs for one tensor. `levels` are looked through in order: that of the model, of the
 * slice, of the recipe. What no level has is the default; RecipeError where there is none, or where a gradient or an
 * expression leaves the range.
 */
export function parameterValues(
  specs: ParameterSpecs,
  levels: readonly Parameters[],
  tensor: TensorContext,
): Record<string, ParameterValue> {
  const values = Object.entries(specs).map(([key, spec]): [string, ParameterValue] => {
    const given = levels.map((level) => level[key]?.find((value) => matches(value, tensor.name))).find(Boolean);
    const value = given === undefined ? spec.default : valueAt(key, given.value, tensor);
    if (value === undefined) {
      throw new RecipeError(
        `${key} has no value for tensor ${tensor.name}: none of its filters matches, and no default`,
      );
    }
    checkAllowed(key, value, spec, tensor);
    return [key, value];
  });
  return Object.fromEntries(values);
}

const matches = ({ filter }: FilteredValue, name: string): boolean => filter === null || name.includes(filter);

function checkAllowed(key: string, value: ParameterValue, spec: ParameterSpec, { name }: TensorContext): void {
  if (isAllowed(value, spec)) return;
  throw new RecipeError(`${key} is ${value} for tensor ${name}, expected ${expected(spec)}`);
}

/** One value; of a gradient the one at the tensor's depth, between two knots on the line; an expression's. */
function valueAt(key: string, value: FilteredValue["value"], tensor: TensorContext): ParameterValue {
  const { name, layer, layers } = tensor;
  if (typeof value === "function") {
    try {
      return value({ layer, layers });
    } catch (error) {
      throw new RecipeError(`${key} has no value for tensor ${name}: ${(error as Error).message}`);
    }
  }
  if (!Array.isArray(value)) return value as ParameterValue;
  const knots = value as readonly ParameterValue[];
  const last = knots.length - 1;
  // As depth * last, but exact: 1 / 49 * 49 is less than 1, and would take the knot before.
  const at = layers > 1 ? (layer * last) / (layers - 1) : tensor.depth * last;
  const below = Math.floor(at);
  const low = knots[below]!;
  const high = knots[Math.min(below + 1, last)]!;
  if (typeof low !== "number" || typeof high !== "number") return low;
  return low + (at - below) * (high - low);
}
