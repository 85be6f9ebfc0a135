// modules: the parts of a model, each with slices or models of its own. Models of one part call it default.
import { describe } from "../config/yaml-source.js";
import type { Parameters, Slice } from "./recipe.js";
import { type Check, checkKeys, isMapping, type Mapping } from "./recipe-notes.js";
import { checkParameters } from "./recipe-parameters.js";
import { type Above, checkSlices } from "./recipe-sources.js";

const NAME = "default";

/** The slices of the only module. Its parameters come after those of its slices, and before the recipe's. */
export async function checkModules(
  { modules, models, slices }: Mapping,
  above: Above,
  check: Check,
): Promise<{ slices: Slice[]; isSliced: boolean }> {
  const nothing = { slices: [], isSliced: false };
  const { note } = check;
  const beside = models !== undefined ? "models" : slices !== undefined ? "slices" : null;
  if (beside !== null) {
    note(["modules"], `expected one of models, slices and modules, got ${beside}, too`);
    return nothing;
  }
  const names = isMapping(modules) ? Object.keys(modules) : [];
  if (!isMapping(modules) || names.join() !== NAME) {
    const got = names.length > 0 ? names.join(", ") : isMapping(modules) ? "none" : describe(modules);
    note(["modules"], `expected one module, ${NAME}, as models of several parts cannot be merged, got ${got}`);
    return nothing;
  }
  const at = ["modules", NAME];
  const module = modules[NAME];
  if (!isMapping(module)) {
    note(at, `expected a mapping with slices or models, got ${describe(module)}`);
    return nothing;
  }
  checkKeys(module, ["slices", "models", "parameters"], note, at);
  const given = Object.fromEntries(Object.entries(module).filter(([, one]) => one !== null));
  const parameters = await checkParameters(given.parameters, [...at, "parameters"], "slice", check);
  const within = { ...above, parameters: [parameters, ...above.parameters] };
  const checked = await checkSlices(given, at, within, check);
  return {
    slices: checked.map((slice) => ({ ...slice, parameters: followed(slice.parameters, parameters) })),
    isSliced: given.slices !== undefined,
  };
}

/** Values of two levels as one: of each parameter those of the nearer, then the other's, since the first match counts. */
function followed(near: Parameters, far: Parameters): Parameters {
  const keys = new Set([...Object.keys(near), ...Object.keys(far)]);
  return Object.fromEntries([...keys].map((key) => [key, [...(near[key] ?? []), ...(far[key] ?? [])]]));
}
