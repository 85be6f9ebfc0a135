// Recipes within recipes: numbers of the merges, and the same result as in steps.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Source } from "../../merge/plan.js";
import { Models } from "./plan-fixture.js";

let models: Models;
beforeAll(async () => {
  models = await Models.create();
  const values = (seed: number) => Array.from({ length: 50 }, (_, i) => Math.sin(seed * (i + 1)));
  for (const [i, name] of ["a", "b", "c", "d"].entries()) {
    await models.write(
      name,
      { "layers.0.w": values(i + 1), "layers.1.w": values(i + 5), norm: values(i + 9) },
      { model_type: "llama", num_hidden_layers: 2, from: name },
    );
  }
});
afterAll(() => models.remove());

/** Numbers and methods of the merges of a source: "0 linear(1 ties(. .) .)". */
function treeOf(source: Source): string {
  if (source.kind !== "merge") return ".";
  const { merge, method, base, models } = source;
  return `${merge} ${method}(${[...(base ? [base] : []), ...models].map(treeOf).join(" ")})`;
}

const INNER = "{merge_method: slerp, base_model: $a, models: [{model: $b}], parameters: {t: 0.3}}";
const OTHER = "{merge_method: dare_ties, base_model: $c, models: [{model: $d}], parameters: {weight: 1, density: 0.5}}";

describe("recipes within recipes", () => {
  test("are numbered depth first, the outermost 0, in the order base, models", async () => {
    const middle = `{merge_method: karcher, models: [{model: ${OTHER}}, {model: $a}]}`;
    const recipe = `merge_method: task_arithmetic\nbase_model: ${INNER}\nparameters: {weight: 1}\nmodels: [{model: ${middle}}, {model: ${INNER}}]\n`;
    const { plan, models: read } = await models.plan(recipe);
    const tree = "0 task_arithmetic(1 slerp(. .) 2 karcher(3 dare_ties(. .) .) 4 slerp(. .))";
    expect(plan.tensors.map(({ source }) => treeOf(source))).toEqual([tree, tree, tree]);
    expect(read).toEqual(["a", "b", "c", "d"].map((name) => models.path(name)));
  });

  test("of one file, named twice, are merged once", async () => {
    await models.recipe(INNER, "inner.yml");
    const recipe =
      "merge_method: nuslerp\nbase_model: $inner.yml\nparameters: {weight: 1}\nmodels: [{model: $inner.yml}, {model: $c}, {model: $d}]\n";
    const { plan } = await models.plan(recipe);
    expect(treeOf(plan.tensors[0]!.source)).toBe("0 nuslerp(1 slerp(. .) . .)");
  });

  test("give what they give one after the other, stored as float32", async () => {
    await models.recipe(INNER, "inner.yml");
    const outer = (model: string) =>
      `merge_method: ties\nbase_model: $d\nparameters: {weight: 1, density: 0.6}\nmodels: [{model: $c}, {model: ${model}}]\n`;
    const inPlace = await models.merge(outer(INNER), "in-place");
    const fromFile = await models.merge(outer("$inner.yml"), "from-file");
    const step = await models.merge(INNER, "step");
    const inSteps = await models.merge(outer("$step"), "in-steps");
    expect(Object.keys(step.tensors)).toHaveLength(3);
    expect(inPlace).toEqual(inSteps);
    expect(fromFile).toEqual(inSteps);
  });

  test("have the config of their base, or first model, and of it the result", async () => {
    const { config } = await models.merge(
      `merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: ${OTHER}}, {model: $a}]\n`,
    );
    expect(JSON.parse(config)).toMatchObject({ from: "c", num_hidden_layers: 2 });
  });

  test("of slices have as many layers as they stack, and can be sliced again", async () => {
    const slice = (model: string, begin: number, end: number) =>
      `{sources: [{model: ${model}, layer_range: [${begin}, ${end}]}]}`;
    const stack = `{merge_method: passthrough, slices: [${slice("$a", 0, 2)}, ${slice("$b", 0, 2)}]}`;
    const whole = await models.merge(`merge_method: karcher\nmodels: [{model: ${stack}}]\n`);
    expect(JSON.parse(whole.config).num_hidden_layers).toBe(4);
    expect(Object.keys(whole.tensors)).toHaveLength(5);
    const part = await models.merge(`merge_method: passthrough\nslices: [${slice(stack, 1, 3)}]\n`);
    const [a, b] = [await models.read("a"), await models.read("b")];
    expect(part.tensors).toEqual({ "layers.0.w": a["layers.1.w"], "layers.1.w": b["layers.0.w"], norm: b.norm });
    expect(JSON.parse(part.config).num_hidden_layers).toBe(2);
  });

  test("must fit as models must", async () => {
    await models.write("less", { "layers.0.w": [1] });
    expect(await models.problem(`merge_method: karcher\nmodels: [{model: ${INNER}}, {model: $less}]\n`)).toBe(
      'SafetensorsError: less: tensor "layers.0.w" has shape [1], expected [50] as in a',
    );
  });
});
