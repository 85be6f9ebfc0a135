// The types of layers in the config of stacks whose sources name none: what the family has by a layer's number.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Models, stack } from "./plan-fixture.js";

let models: Models;
beforeAll(async () => {
  models = await Models.create();
});
afterAll(() => models.remove());

describe("layer types of Gemma in the style of the Hub, without layer_types", () => {
  const layers = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`model.layers.${i}.w`, [i]]));
  const config = '{\n  "model_type": "gemma2",\n  "rope_theta": 8.0,\n  "num_hidden_layers": 8\n}\n';
  const configOf = async (text: string) => (await models.plan(text)).config;
  beforeAll(async () => {
    await models.write("g2", layers, config);
    await models.write("g3", layers, config.replace("gemma2", "gemma3_text"));
    await models.write(
      "saved",
      layers,
      config.replace("rope_theta", "layer_types").replace("8.0", JSON.stringify(Array(8).fill("full_attention"))),
    );
  });
  const withDtype = (text: string) => text.replace("{\n", '{\n  "torch_dtype": "float32",\n');

  test("are left out where the family has the same anyway: 8.0 stays 8.0", async () => {
    const half = withDtype(config.replace(": 8\n", ": 4\n"));
    expect(await configOf(stack(["$g2", 0, 4]))).toBe(half);
    expect(await configOf(stack(["$g2", 2, 4], ["$g2", 6, 8]))).toBe(half);
    expect(await configOf(stack(["$g3", 0, 4]))).toBe(half.replace("gemma2", "gemma3_text"));
  });

  test("are those of the source's layers where they differ", async () => {
    const typesOf = async (text: string) =>
      (JSON.parse(await configOf(text)).layer_types as string[]).map((type) => type[0]).join("");
    expect(await typesOf(stack(["$g2", 1, 4]))).toBe("fsf");
    expect(await typesOf(stack(["$g2", 0, 3], ["$g2", 0, 3]))).toBe("sfssfs");
    expect(await typesOf(stack(["$g3", 4, 8]))).toBe("sfss");
    expect(await typesOf(stack(["$g2", 0, 2], ["$saved", 0, 2]))).toBe("sfff");
    expect(await typesOf(stack(["$saved", 0, 2], ["$g2", 0, 2]))).toBe("ffsf");
  });

  test("are expected in all configs of other families, or in none", async () => {
    const qwen = config.replace("gemma2", "qwen2");
    await models.write("without", layers, qwen);
    await models.write("with", layers, qwen.replace("rope_theta", "layer_types").replace("8.0", '["full_attention"]'));
    expect(await configOf(stack(["$without", 0, 3]))).toBe(withDtype(qwen.replace(": 8\n", ": 3\n")));
    expect(await models.problem(stack(["$with", 0, 1], ["$without", 0, 1]))).toBe(
      "ModelError: without: config.json has no layer_types, which with's has: expected them in both",
    );
  });
});
