// What a recipe without mistakes is read as.
import { describe, expect, test } from "vitest";
import { checkRecipe } from "../../merge/recipe-check.js";
import { mistakesOf } from "./recipe-fixture.js";

describe("a recipe without mistakes", () => {
  test("is read as it is written", async () => {
    const slice = (begin: number) => ({
      sources: [
        { model: "a", layer_range: [begin, begin + 2], parameters: { weight: [0, 1] } },
        { model: "b+lora", layer_range: [0, 2] },
      ],
      parameters: { weight: [{ filter: "mlp", value: 2 }, { filter: "*", value: [3] }, { value: 4 }] },
    });
    const written = {
      merge_method: "linear",
      slices: [slice(0), slice(4)],
      base_model: "c",
      parameters: { normalize: false },
      dtype: "float32",
      out_dtype: "bfloat16",
      tokenizer_source: "union",
      chat_template: "auto",
    };
    const sliceRead = (begin: number) => ({
      sources: [
        {
          model: { kind: "folder", path: "a", adapter: null, text: "a" },
          layerRange: [begin, begin + 2],
          parameters: { weight: [{ filter: null, value: [0, 1] }] },
        },
        {
          model: { kind: "folder", path: "b", adapter: "lora", text: "b+lora" },
          layerRange: [0, 2],
          parameters: {},
        },
      ],
      parameters: {
        weight: [
          { filter: "mlp", value: 2 },
          { filter: null, value: [3] },
          { filter: null, value: 4 },
        ],
      },
    });
    expect(await checkRecipe(written, () => Promise.reject(new Error("reads no file")))).toEqual({
      mistakes: [],
      recipe: {
        method: "linear",
        slices: [sliceRead(0), sliceRead(4)],
        isSliced: true,
        base: { kind: "folder", path: "c", adapter: null, text: "c" },
        parameters: { normalize: [{ filter: null, value: false }] },
        dtype: "bfloat16",
        tokenizer: { source: "union", tokens: {}, padToMultipleOf: null },
        chatTemplate: "auto",
      },
    });
  });

  test("may have one value with a filter where a list of one would do, and a key of slices that does nothing", async () => {
    const written = {
      merge_method: "passthrough",
      slices: [{ sources: [{ model: "a", layer_range: [0, 1] }], residual_weight: 0.5 }],
      parameters: { scale: { filter: "o_proj", value: 0 } },
    };
    const { recipe, mistakes } = await checkRecipe(written, () => Promise.reject(new Error("reads no file")));
    expect(mistakes).toEqual([]);
    expect(recipe!.parameters).toEqual({ scale: [{ filter: "o_proj", value: 0 }] });
  });

  test("may leave out what has a default, and have keys without a value", async () => {
    expect(await mistakesOf("merge_method: karcher\nmodels: [{model: a}, {model: b}]\nbase_model:\ndtype:\n")).toEqual(
      [],
    );
  });
});
