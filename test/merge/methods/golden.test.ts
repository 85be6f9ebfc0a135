// Every method against what mergekit 0.1.5 wrote for the recipes of test/fixtures/mergekit (float32).
import { describe, expect, test } from "vitest";
import type { ParameterValue } from "../../../merge/method.js";
import { METHODS, type MethodName } from "../../../merge/methods.js";
import { mergeTensor } from "../../../merge/run-in-memory.js";
import { maxDifference } from "../warp-fixture.js";
import { readGolden, settingsOf } from "./settings.js";

type Given = Readonly<Record<string, ParameterValue>>;
type ModelName = "a" | "b" | "c";

interface Recipe {
  readonly method: MethodName;
  readonly base?: "base" | "a";
  readonly models: Readonly<Partial<Record<ModelName, Given>>>;
  readonly global?: Given;
  /** Tensors for which the recipe gives these parameters; of others a filter or a gradient gives other ones. */
  readonly tensors?: RegExp;
}

const RECIPES: Readonly<Record<string, Recipe>> = {
  linear: { method: "linear", models: { a: { weight: 0.3 }, b: { weight: 0.9 } } },
  "linear-unnormalized": {
    method: "linear",
    models: { a: { weight: 0.3 }, b: { weight: 0.9 } },
    global: { normalize: false },
  },
  "slerp-siblings": { method: "slerp", base: "a", models: { b: {} }, global: { t: 0.3 } },
  "slerp-unrelated": {
    method: "slerp",
    base: "a",
    models: { c: {} },
    global: { t: 0.4 },
    tensors: /^(?!.*self_attn)/,
  },
  "nuslerp-base": { method: "nuslerp", base: "base", models: { a: { weight: 0.5 }, b: { weight: 0.5 } } },
  "nuslerp-flat": { method: "nuslerp", models: { a: { weight: 0.3 }, c: { weight: 0.7 } } },
  "nuslerp-rowwise": {
    method: "nuslerp",
    base: "base",
    models: { a: { weight: 0.6 }, b: { weight: 0.2 } },
    global: { nuslerp_flatten: false, nuslerp_row_wise: true },
  },
  "nuslerp-rows": {
    method: "nuslerp",
    models: { a: { weight: 0.6 }, c: { weight: 0.2 } },
    global: { nuslerp_flatten: false },
  },
  multislerp: { method: "multislerp", models: { a: { weight: 0.5 }, b: { weight: 0.3 }, c: { weight: 0.2 } } },
  "multislerp-base": {
    method: "multislerp",
    base: "base",
    models: { a: { weight: 1.5 }, b: { weight: 0.5 }, c: { weight: 1 } },
  },
  karcher: { method: "karcher", models: { a: {}, b: {}, c: {} } },
  "task-arithmetic": { method: "task_arithmetic", base: "base", models: { a: { weight: 0.7 }, b: { weight: 0.4 } } },
  "task-arithmetic-lambda": {
    method: "task_arithmetic",
    base: "base",
    models: { a: { weight: 0.7 }, b: { weight: 0.4 } },
    global: { lambda: 0.5, normalize: true },
  },
  ties: {
    method: "ties",
    base: "base",
    models: { a: { weight: 0.6, density: 0.5 }, b: { weight: 0.4, density: 0.3 } },
  },
  "ties-int8mask": {
    method: "ties",
    base: "base",
    models: { a: { weight: 0.6, density: 0.5 }, b: { weight: 0.4, density: 0.3 } },
    global: { int8_mask: true },
  },
  "ties-normalize": {
    method: "ties",
    base: "base",
    models: { a: { weight: 0.6, density: 0.5 }, b: { weight: 0.4, density: 0.3 } },
    global: { normalize: true, lambda: 0.8 },
  },
  breadcrumbs: {
    method: "breadcrumbs",
    base: "base",
    models: { a: { weight: 0.6, density: 0.8, gamma: 0.05 }, b: { weight: 0.4, density: 0.8, gamma: 0.05 } },
  },
  "breadcrumbs-ties": {
    method: "breadcrumbs_ties",
    base: "base",
    models: { a: { weight: 0.6, density: 0.8, gamma: 0.05 }, b: { weight: 0.4, density: 0.8, gamma: 0.05 } },
  },
  "model-stock": { method: "model_stock", base: "base", models: { a: {}, b: {} } },
  "model-stock-filterwise": {
    method: "model_stock",
    base: "base",
    models: { a: {}, b: {} },
    global: { filter_wise: true },
  },
  sce: { method: "sce", base: "base", models: { a: {}, b: {} }, global: { select_topk: 0.5 } },
  nearswap: { method: "nearswap", base: "a", models: { b: {} }, global: { t: 0.01 } },
  "arcee-fusion": { method: "arcee_fusion", base: "a", models: { c: {} } },
};

const sources = {
  base: readGolden("models/base/model"),
  a: readGolden("models/a/model"),
  b: readGolden("models/b/model"),
  c: readGolden("models/c/model"),
};

describe.each(Object.entries(RECIPES))("%s", (file, { method, base, models, global = {}, tensors = /./ }) => {
  const expected = [...readGolden(`expected/${file}`)].filter(([name]) => tensors.test(name));
  const names = Object.keys(models) as ModelName[];
  const settings = settingsOf(method, global, Object.values(models));

  test.each([2 ** 18, 100])("gives what mergekit gives, in parts of %i elements", (partElements) => {
    for (const [name, { values, shape }] of expected) {
      const tensor = {
        base: base ? sources[base].get(name)!.values : null,
        models: names.map((model) => sources[model].get(name)!.values),
        shape,
      };
      const merged = mergeTensor(METHODS[method], tensor, settings, partElements);
      expect(maxDifference(merged, values), name).toBeLessThan(2e-6);
    }
  });
});
