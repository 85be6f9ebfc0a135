// What parameters are for one tensor: filters, levels, gradients at depths that a reader can redo, expressions.
import { describe, expect, test } from "vitest";
import { compileSchedule } from "../../config/schedule.js";
import type { ParameterSpecs, ParameterValue } from "../../merge/method.js";
import { parameterValues, type TensorContext, tensorContext } from "../../merge/parameters.js";
import type { FilteredValue } from "../../merge/recipe.js";

const specs: ParameterSpecs = {
  weight: { type: "number", min: -10, max: 10, description: "" },
  flatten: { type: "boolean", default: true, description: "" },
  by: { type: "choice", choices: ["tensor", "layer"], default: "tensor", description: "" },
};

const all = (value: FilteredValue["value"]): FilteredValue[] => [{ filter: null, value }];
const on = (filter: string | null, value: ParameterValue): FilteredValue => ({ filter, value });
const mlp = tensorContext("model.layers.1.mlp.up_proj.weight", 1, 4);
const attention = tensorContext("model.layers.1.self_attn.q_proj.weight", 1, 4);
const norm = tensorContext("model.norm.weight", null, 4);

const weightOf = (value: FilteredValue["value"], tensor: TensorContext) =>
  parameterValues(specs, [{ weight: all(value) }], tensor).weight;
/** The values at each of so many layers. */
const overLayers = (layers: number, value: FilteredValue["value"], key = "weight") =>
  Array.from({ length: layers }, (_, layer) => {
    const given = { weight: all(0), [key]: all(value) };
    return parameterValues(specs, [given], tensorContext(`layers.${layer}.w`, layer, layers))[key];
  });

describe("filters and levels", () => {
  test("what is not given has its default", () => {
    expect(parameterValues(specs, [{ weight: all(1) }], mlp)).toEqual({ weight: 1, flatten: true, by: "tensor" });
  });

  test("the first filter that is part of the name counts; none is every tensor", () => {
    const level = { weight: [on("mlp", 1), on("up_proj", 2), on(null, 3), on("norm", 4)] };
    const found = [mlp, attention, norm].map((tensor) => parameterValues(specs, [level], tensor).weight);
    expect(found).toEqual([1, 3, 3]);
  });

  test("where no filter matches, the next level counts; then the default", () => {
    const model = { weight: [on("mlp", 1)], flatten: [on("mlp", false)] };
    const levels = [model, { weight: [on("self_attn", 2)] }, { weight: all(3) }];
    const found = [mlp, attention, norm].map((tensor) => parameterValues(specs, levels, tensor));
    expect(found.map(({ weight }) => weight)).toEqual([1, 2, 3]);
    expect(found.map(({ flatten }) => flatten)).toEqual([false, true, true]);
  });

  test("the model's comes before the slice's, the slice's before the whole's", () => {
    const levels = [1, 2, 3].map((value) => ({ weight: all(value) }));
    expect(parameterValues(specs, levels, mlp).weight).toBe(1);
    expect(parameterValues(specs, levels.slice(1), mlp).weight).toBe(2);
    expect(parameterValues(specs, [{}, {}, levels[2]!], mlp).weight).toBe(3);
  });

  test("falsy values are values", () => {
    expect(parameterValues(specs, [{ weight: all(0), flatten: all(false) }, { weight: all(1) }], mlp)).toMatchObject({
      weight: 0,
      flatten: false,
    });
  });

  test("a tensor that no filter matches is named where there is no default", () => {
    expect(() => parameterValues(specs, [{ weight: [on("mlp", 1)] }], norm)).toThrow(
      "weight has no value for tensor model.norm.weight: none of its filters matches, and no default",
    );
  });
});

describe("gradients", () => {
  test("go from the first layer to the last of the slice, on the line between knots", () => {
    expect(overLayers(5, [0, 1])).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(overLayers(5, [0, 4, 0])).toEqual([0, 2, 4, 2, 0]);
    expect(overLayers(3, [0, 1, 3, 7, 9])).toEqual([0, 3, 9]);
    // Depths 0, 1/3, 2/3, 1 of three knots are 0, 2/3, 4/3, 2.
    expect(overLayers(4, [0, 3, 9])).toEqual([0, expect.closeTo(2, 12), expect.closeTo(5, 12), 9]);
  });

  test("one layer takes the last knot, tensors outside the layers the first; one knot is everywhere", () => {
    expect(overLayers(1, [2, 3, 4])).toEqual([4]);
    expect([weightOf([2, 3, 4], norm), weightOf([2, 3], tensorContext("model.norm.weight", null, 1))]).toEqual([2, 2]);
    expect([weightOf([5], mlp), weightOf([5], norm)]).toEqual([5, 5]);
  });

  test("knots on layers are met exactly, for any number of layers", () => {
    for (let layers = 2; layers < 100; layers++) {
      const knots = Array.from({ length: layers }, (_, layer) => layer % 2 === 0);
      expect(overLayers(layers, knots, "flatten")).toEqual(knots);
    }
  });

  test("of booleans and choices take the knot before", () => {
    expect(overLayers(5, [true, false, true], "flatten")).toEqual([true, true, false, false, true]);
    expect(overLayers(4, ["layer", "tensor"], "by")).toEqual(["layer", "layer", "layer", "tensor"]);
  });
});

describe("expressions", () => {
  test("know the layer, from 0, and the number of layers of the slice", async () => {
    const value = await compileSchedule("layer / (layers - 1) + layers");
    expect(overLayers(3, value)).toEqual([3, 3.5, 4]);
    expect(weightOf(await compileSchedule("layer + 10 * layers"), tensorContext("norm", null, 1))).toBe(10);
  });

  test("without a value name the tensor", async () => {
    const value = await compileSchedule("1 / layer");
    expect(() => weightOf(value, norm)).toThrow(
      'weight has no value for tensor model.norm.weight: "1 / layer" is Infinity at layer 0, expected a finite number',
    );
  });
});

test("a value that leaves the range at some layer names the tensor", async () => {
  const value = await compileSchedule("20 * layer");
  expect(weightOf(value, norm)).toBe(0);
  expect(() => weightOf(value, mlp)).toThrow(
    "weight is 20 for tensor model.layers.1.mlp.up_proj.weight, expected a number from -10 to 10",
  );
});

test("a gradient of a whole number must be whole at every layer", () => {
  const times: ParameterSpecs = { times: { type: "integer", min: 1, description: "" } };
  const at = (layer: number) => parameterValues(times, [{ times: all([1, 4]) }], tensorContext("w", layer, 3)).times;
  expect([at(0), at(2)]).toEqual([1, 4]);
  expect(() => at(1)).toThrow("times is 2.5 for tensor w, expected a whole number, 1 or more");
});
