// What tests of methods share: settings with defaults filled in, as a plan has them, and mergekit's golden files.
import { readFileSync } from "node:fs";
import { deserialize, toFloat32 } from "safetensors-ts";
import type { ParameterSpecs, ParameterValue, Settings } from "../../../merge/method.js";
import { METHODS, type MethodName } from "../../../merge/methods.js";
import { mergeTensor } from "../../../merge/run-in-memory.js";

type Given = Readonly<Record<string, ParameterValue>>;

/** The settings of a method: what is given, and defaults for the rest. One entry of `models` for each model. */
export function settingsOf(method: MethodName, global: Given, models: readonly Given[], seed = 0): Settings {
  const { global: globalSpecs, model } = METHODS[method];
  return { global: filled(globalSpecs, global), models: models.map((given) => filled(model, given)), seed };
}

function filled(specs: ParameterSpecs, given: Given): Record<string, ParameterValue> {
  const values: Record<string, ParameterValue> = { ...given };
  for (const [name, spec] of Object.entries(specs)) {
    const value = given[name] ?? spec.default;
    if (value === undefined) throw new Error(`"${name}" has no default`);
    values[name] = value;
  }
  return values;
}

/** A method on small tensors of one axis, or of rows of `columns` elements. */
export function merge(
  method: MethodName,
  sources: { readonly base?: readonly number[]; readonly models: readonly (readonly number[])[] },
  parameters: { readonly global?: Given; readonly models?: readonly Given[]; readonly columns?: number } = {},
): number[] {
  const elements = sources.models[0]!.length;
  const { global = {}, models = sources.models.map(() => ({})), columns } = parameters;
  const shape = columns === undefined ? [elements] : [elements / columns, columns];
  const tensors = {
    base: sources.base ? Float32Array.from(sources.base) : null,
    models: sources.models.map((model) => Float32Array.from(model)),
    shape,
  };
  return [...mergeTensor(METHODS[method], tensors, settingsOf(method, global, models))];
}

export interface GoldenTensor {
  readonly values: Float32Array;
  readonly shape: readonly number[];
}

/** The tensors of a file of test/fixtures/mergekit, by name. */
export function readGolden(path: string): Map<string, GoldenTensor> {
  const bytes = readFileSync(new URL(`../../fixtures/mergekit/${path}.safetensors`, import.meta.url));
  return new Map(
    deserialize(bytes).tensors.map(({ name, dtype, shape, data }) => {
      if (dtype !== "F32") throw new Error(`${path}: ${name} is ${dtype}`);
      return [name, { values: toFloat32(data, dtype), shape }];
    }),
  );
}
