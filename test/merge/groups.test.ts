import { describe, expect, test } from "vitest";
import { type Granularity, groupTensors, layerOf } from "../../merge/groups.js";

describe("layerOf", () => {
  test.each([
    ["model.layers.0.mlp.up_proj.weight", "model.layers.0", 0],
    ["model.layers.12.input_layernorm.weight", "model.layers.12", 12],
    ["layers.3.self_attn.q_proj.weight", "layers.3", 3],
    ["transformer.h.11.attn.c_attn.weight", "transformer.h.11", 11],
    ["model.layers.2.mlp.experts.7.w1.weight", "model.layers.2", 2],
    ["language_model.model.layers.5.mlp.up_proj.weight", "language_model.model.layers.5", 5],
  ])("%s is in %s", (name, layer, index) => {
    expect(layerOf(name)).toEqual({ layer, index });
  });

  test.each(["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "layers.weight", "player.3.weight"])(
    "%s is in none",
    (name) => expect(layerOf(name)).toBeNull(),
  );
});

describe("groupTensors", () => {
  const names = ["embed", "layers.0.a", "layers.1.a", "layers.0.b", "layers.10.a", "norm"];

  test("layer: one group a layer, and each tensor outside the layers by itself", () => {
    expect([...groupTensors(names, "layer")]).toEqual([
      ["embed", ["embed"]],
      ["layers.0", ["layers.0.a", "layers.0.b"]],
      ["layers.1", ["layers.1.a"]],
      ["layers.10", ["layers.10.a"]],
      ["norm", ["norm"]],
    ]);
  });

  test("tensor and model: each by itself, all together", () => {
    expect([...groupTensors(names, "tensor")]).toEqual(names.map((name) => [name, [name]]));
    expect([...groupTensors(names, "model")]).toEqual([["model", names]]);
  });

  test("refuses another granularity", () => {
    expect(() => groupTensors(names, "block" as Granularity)).toThrow(
      new RangeError('granularity should be one of tensor, layer, model, got "block"'),
    );
  });
});
