import { describe, expect, test } from "vitest";
import { type Granularity, groupOf, layerOf } from "../../merge/groups.js";

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

describe("groupOf", () => {
  test.each([
    ["model.layers.10.w", "layer", "model.layers.10"],
    ["model.norm.weight", "layer", "model.norm.weight"],
    ["model.layers.10.w", "tensor", "model.layers.10.w"],
    ["model.layers.10.w", "model", "model"],
  ] as const)("%s by %s is in %s", (name, granularity, group) => {
    expect(groupOf(name, granularity)).toBe(group);
  });

  test("refuses another granularity", () => {
    expect(() => groupOf("w", "block" as Granularity)).toThrow(
      new RangeError('granularity should be one of tensor, layer, model, got "block"'),
    );
  });
});
