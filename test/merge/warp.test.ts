import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Dtype, fromFloat32, type NamedTensor, openCheckpoint, toFloat32, writeCheckpoint } from "safetensors-ts";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { GRANULARITIES } from "../../merge/groups.js";
import { mergeRecipe } from "../../merge/merge-recipe.js";
import { slerp } from "../../merge/slerp.js";
import {
  emaCheckpoints,
  lerpCheckpoints,
  litiCheckpoints,
  type MergeOptions,
  slerpCheckpoints,
} from "../../merge/warp.js";
import { maxDifference, tensorsUnder, warp } from "./warp-fixture.js";

const CONFIG = '{\n  "model_type": "gemma2",\n  "rope_theta": 10000.0,\n  "torch_dtype": "float32"\n}\n';

let root: string;
let folder: string;
let count = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "merge-"));
  for (const name of ["init", "run0", "run1", "run2"]) await writeModel(join(root, name), tensorsUnder(`${name}.`));
});
beforeEach(async () => {
  folder = join(root, String(count++));
  await mkdir(folder);
});
afterAll(() => rm(root, { recursive: true }));

async function writeModel(path: string, tensors: readonly NamedTensor[]): Promise<string> {
  await writeCheckpoint(path, tensors);
  await writeFile(join(path, "config.json"), CONFIG);
  return path;
}

async function readModel(path: string): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(path);
  const entries = checkpoint.tensors.map(
    async ({ name }): Promise<[string, Float32Array]> => [name, await checkpoint.readFloat32(name)],
  );
  const model = new Map(await Promise.all(entries));
  await checkpoint.close();
  return model;
}

const runs = (n: number) => ["run0", "run1", "run2"].slice(0, n).map((name) => join(root, name));
const f32 = (name: string, ...values: number[]): NamedTensor => ({
  name,
  dtype: "F32",
  shape: [values.length],
  data: new Uint8Array(Float32Array.from(values).buffer),
});
/** A tensor of small whole numbers, which every dtype holds exactly. */
const whole = (name: string, dtype: Dtype, ...values: number[]): NamedTensor => ({
  name,
  dtype,
  shape: [values.length],
  data:
    dtype === "I8" ? Uint8Array.from(values) : fromFloat32(Float32Array.from(values), dtype as "F16" | "BF16" | "F32"),
});
const defaults = (): MergeOptions => ({
  init: join(root, "init"),
  runs: runs(2),
  out: join(folder, "out"),
  granularity: "layer",
  eta: 1,
  dtype: "float32",
});
const file = (model: string) => join(model, "model.safetensors");
/** A SafetensorsError with exactly this message. */
const problem = (message: string) => expect.objectContaining({ name: "SafetensorsError", message });
/** A ModelError with exactly this message. */
const modelProblem = (message: string) => expect.objectContaining({ name: "ModelError", message });

describe("slerpCheckpoints", () => {
  const cases = GRANULARITIES.flatMap((granularity) => [2, 3].map((m) => ({ granularity, m })));

  test.each(cases)(
    "agrees with the golden values: $granularity, $m runs, SLERP and SLERP + LITI",
    async ({ granularity, m }) => {
      for (const [kind, eta] of [
        ["slerp", 1],
        ["liti", warp.eta],
      ] as const) {
        const options = { ...defaults(), runs: runs(m), out: join(folder, kind), granularity, eta };
        const statistics = await slerpCheckpoints(options);
        const found = await readModel(options.out);
        const expected = tensorsUnder(`${kind}.${granularity}.${m}.`);
        expect(found.size).toBe(expected.length);
        for (const { name, data } of expected) {
          expect(maxDifference(found.get(name)!, toFloat32(data, "F32")), name).toBeLessThan(1e-6);
        }
        for (const { group, angles } of statistics) {
          const golden = warp.omega[`${granularity}.${m}.${granularity === "model" ? "all" : group}`]!;
          expect(angles.map((angle) => angle === null)).toEqual(golden.map((angle) => angle === null));
          for (const [i, angle] of angles.entries()) expect(angle ?? 0).toBeCloseTo(golden[i] ?? 0, 6);
        }
      }
    },
  );

  test("returns the geometry of every group", async () => {
    const init = await writeModel(join(folder, "init"), [
      f32("layers.0.a", 0, 0),
      f32("layers.0.b", 0),
      f32("norm", 1),
    ]);
    const one = await writeModel(join(folder, "one"), [f32("layers.0.a", 3, 0), f32("layers.0.b", 4), f32("norm", 1)]);
    const two = await writeModel(join(folder, "two"), [f32("layers.0.a", 0, 5), f32("layers.0.b", 0), f32("norm", 3)]);
    const merge = { ...defaults(), init, runs: [one, two], eta: 0.5 };
    const angle = expect.closeTo(Math.PI / 2, 12);
    const cosine = expect.closeTo(0, 12);
    expect(await slerpCheckpoints(merge)).toEqual([
      {
        group: "layers.0",
        tensors: 2,
        norms: [5, 5],
        angles: [angle],
        cosines: [cosine],
        mergedNorm: expect.closeTo(5, 12),
        baseNorm: 0,
        pairwise: [
          [1, 0],
          [0, 1],
        ],
        normRatios: [1, 1],
        signConflicts: 0,
      },
      {
        group: "norm",
        tensors: 1,
        norms: [0, 2],
        angles: [null],
        cosines: [null],
        mergedNorm: 1,
        baseNorm: 1,
        pairwise: [
          [null, null],
          [null, 1],
        ],
        normRatios: [null, null],
        signConflicts: 0,
      },
    ]);
    const [average] = await lerpCheckpoints({ ...merge, out: join(folder, "average") });
    expect(average).toMatchObject({ norms: [5, 5], angles: [angle], mergedNorm: expect.closeTo(5 * Math.SQRT1_2, 12) });
    expect([...(await readModel(join(folder, "average"))).get("layers.0.a")!]).toEqual([0.75, 1.25]);
  });

  test("gives the cosine of parallel task vectors as 1", async () => {
    const init = await writeModel(join(folder, "init"), [f32("w", 0)]);
    const one = await writeModel(join(folder, "one"), [f32("w", 1)]);
    const [group] = await slerpCheckpoints({ ...defaults(), init, runs: [one, one] });
    expect(group).toMatchObject({ angles: [0], cosines: [1] });
  });

  test("in several chunks gives what it gives in memory", async () => {
    const size = 2 ** 21 + 3;
    const values = (seed: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(seed * (i + 1)));
    const [a, b, c] = [values(0.1), values(0.2), values(0.3)];
    const model = (name: string, x: Float32Array) =>
      writeModel(join(folder, name), [{ ...f32("w"), shape: [size], data: fromFloat32(x, "F32") }]);
    const options = { ...defaults(), init: await model("a", a), runs: [await model("b", b), await model("c", c)] };
    const [group] = await slerpCheckpoints(options);
    const whole = slerp(a, [b, c]);
    expect(maxDifference((await readModel(options.out)).get("w")!, whole.merged)).toBeLessThan(1e-6);
    expect(group!.angles[0]).toBeCloseTo(whole.angles[0]!, 12);
  });

  test("takes an eta for each layer; tensors outside the layers take the first's", async () => {
    const tensors = (x: number) => [f32("embed", x), f32("layers.0.w", x), f32("layers.1.w", x), f32("layers.2.w", x)];
    const init = await writeModel(join(folder, "init"), tensors(0));
    const run = await writeModel(join(folder, "run"), tensors(1));
    const eta = (layer: number, layers: number) => (layer + 1) / (layers + 1);
    await slerpCheckpoints({ ...defaults(), init, runs: [run, run], eta });
    const merged = await readModel(defaults().out);
    expect([...merged].map(([name, [x]]) => [name, x])).toEqual([
      ["embed", 0.25],
      ["layers.0.w", 0.25],
      ["layers.1.w", 0.5],
      ["layers.2.w", 0.75],
    ]);
  });
});

describe("litiCheckpoints", () => {
  test("goes eta of the way, and eta 1 gives the model bit for bit", async () => {
    const model = join(root, "run1");
    const options = { ...defaults(), model };
    await litiCheckpoints(options);
    expect(await readModel(options.out)).toEqual(await readModel(model));
    await litiCheckpoints({ ...options, eta: 0, overwrite: true });
    expect(await readModel(options.out)).toEqual(await readModel(options.init));
  });
});

describe("emaCheckpoints", () => {
  test("goes mu of the way to each next checkpoint, and has the last one's config", async () => {
    const models = await Promise.all([4, 8, 16].map((x, i) => writeModel(join(folder, `${i}`), [f32("w", x, 0)])));
    await writeFile(join(models[2]!, "config.json"), '{"step": 3, "torch_dtype": "float32"}');
    const out = join(folder, "out");
    await emaCheckpoints({ models, mu: 0.25, dtype: "float32", out });
    // 4, then 3/4 of 4 and 1/4 of 8 is 5, then 3/4 of 5 and 1/4 of 16.
    expect([...(await readModel(out)).get("w")!]).toEqual([7.75, 0]);
    expect(await readFile(join(out, "config.json"), "utf8")).toBe('{"step": 3, "torch_dtype": "float32"}');
    await expect(emaCheckpoints({ models, mu: 2, dtype: "float32", out })).rejects.toThrow(
      new RangeError("mu should be a number from 0 to 1, got 2"),
    );
  });
});

describe("the folder that is written", () => {
  test("has the init's config, tokenizer and chat template, and weights of format pt", async () => {
    const init = await writeModel(join(folder, "init"), tensorsUnder("init."));
    const files = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
    for (const name of files) await writeFile(join(init, name), `{"is": "${name}"}`);
    await writeFile(join(init, "README.md"), "of the init alone");
    const options = { ...defaults(), init };
    await slerpCheckpoints(options);
    expect(new Set(await readdir(options.out))).toEqual(
      new Set([...files, "config.json", "model.safetensors", "README.md"]),
    );
    for (const name of files) expect(await readFile(join(options.out, name), "utf8")).toBe(`{"is": "${name}"}`);
    expect(await readFile(join(options.out, "config.json"), "utf8")).toBe(CONFIG);
    const checkpoint = await openCheckpoint(options.out);
    expect(checkpoint.metadata).toEqual({ format: "pt" });
    await checkpoint.close();
  });

  test("has a model card, whose recipe makes the same model", async () => {
    const merges: Record<string, (out: string) => Promise<unknown>> = {
      slerp: (out) => slerpCheckpoints({ ...defaults(), out, eta: 0.3 }),
      lerp: (out) => lerpCheckpoints({ ...defaults(), out }),
      ema: (out) => emaCheckpoints({ models: runs(3), mu: 0.25, dtype: "float32", out }),
    };
    for (const [name, merge] of Object.entries(merges)) {
      const out = join(folder, name);
      await merge(out);
      const card = await readFile(join(out, "README.md"), "utf8");
      expect(card).toContain(`# ${name}\n\nMerged by heddle, by the recipe below.`);
      await writeFile(join(folder, "r.yml"), /```yaml\n(.*)```/s.exec(card)![1]!);
      await mergeRecipe({ recipe: join(folder, "r.yml"), out: join(folder, "again"), overwrite: true });
      expect(await readModel(join(folder, "again")), name).toEqual(await readModel(out));
    }
  });

  test("has a model card without a recipe where eta is a function of the layer", async () => {
    const options = { ...defaults(), eta: (layer: number) => 0.1 * (layer + 1) };
    await slerpCheckpoints(options);
    expect(await readFile(join(options.out, "README.md"), "utf8")).not.toContain("```");
  });

  test("is bf16 from a bf16 init by `input`, float32 by `float32`, and says so in config.json", async () => {
    const init = fileURLToPath(new URL("../fixtures/models/gemma2-tiny-bf16-sharded", import.meta.url));
    const run = join(folder, "run");
    await litiCheckpoints({ init, model: init, eta: 1, dtype: "float32", out: run });
    expect(JSON.parse(await readFile(join(run, "config.json"), "utf8")).torch_dtype).toBe("float32");
    const options = { ...defaults(), init, runs: [run, run], dtype: "input" as const };
    await slerpCheckpoints(options);
    const [before, after, text] = await Promise.all([
      readModel(init),
      readModel(options.out),
      readFile(join(options.out, "config.json"), "utf8"),
    ]);
    expect(after).toEqual(before);
    expect(text).toBe(await readFile(join(init, "config.json"), "utf8"));
    expect((await stat(join(options.out, "model.safetensors"))).size).toBeLessThan(500_000);
  });

  test("rounds once, to nearest even: 1 + 2^-8 in bf16 is 1, 1 + 3 * 2^-8 is 1 + 2^-6", async () => {
    const init = await writeModel(join(folder, "init"), [whole("w", "BF16", 1, 1)]);
    const run = await writeModel(join(folder, "run"), [f32("w", 1 + 2 ** -7, 1 + 3 * 2 ** -7)]);
    const options = { ...defaults(), init, model: run, eta: 0.5, dtype: "input" as const };
    await litiCheckpoints(options);
    expect([...(await readModel(options.out)).get("w")!]).toEqual([1, 1 + 2 ** -6]);
  });

  test("keeps integers, which must not differ", async () => {
    const init = await writeModel(join(folder, "init"), [whole("mask", "I8", 1, 0), f32("w", 1)]);
    const same = await writeModel(join(folder, "same"), [whole("mask", "I8", 1, 0), f32("w", 3)]);
    const other = await writeModel(join(folder, "other"), [whole("mask", "I8", 1, 1), f32("w", 3)]);
    const options = { ...defaults(), init, runs: [same, same], dtype: "bfloat16" as const };
    await slerpCheckpoints(options);
    const checkpoint = await openCheckpoint(options.out);
    expect(checkpoint.tensors.map(({ name, dtype }) => [name, dtype])).toEqual([
      ["w", "BF16"],
      ["mask", "I8"],
    ]);
    expect([...(await checkpoint.read("mask"))]).toEqual([1, 0]);
    await checkpoint.close();
    await expect(slerpCheckpoints({ ...options, runs: [same, other], overwrite: true })).rejects.toThrow(
      problem(
        `${file(other)}: tensor "mask" of dtype I8 differs from ${file(init)}'s of I8: only float tensors can be merged`,
      ),
    );
  });
});

describe("errors come before anything is written", () => {
  test("names a tensor of another shape, a missing and an additional one, with their shapes", async () => {
    const init = await writeModel(join(folder, "init"), [f32("a", 1, 2), f32("b", 1)]);
    const shape = await writeModel(join(folder, "shape"), [f32("a", 1, 2), f32("b", 1, 2, 3)]);
    const missing = await writeModel(join(folder, "missing"), [f32("a", 1, 2)]);
    const more = await writeModel(join(folder, "more"), [f32("a", 1, 2), f32("b", 1), f32("lm_head", 5, 6)]);
    const merge = (run: string) => slerpCheckpoints({ ...defaults(), init, runs: [init, run] });
    await expect(merge(shape)).rejects.toThrow(
      problem(`${shape}: tensor "b" has shape [3], expected [1] as in ${init}`),
    );
    await expect(merge(missing)).rejects.toThrow(
      problem(`${missing}: has no tensor "b", which ${init} has in shape [1]`),
    );
    await expect(merge(more)).rejects.toThrow(
      problem(`${more}: has a tensor "lm_head" of shape [2], which ${init} has not`),
    );
    expect(await readdir(folder)).not.toContain("out");
  });

  test("names a value that is not finite, and leaves no folder", async () => {
    const init = await writeModel(join(folder, "init"), [f32("a", 1), f32("w", 1, 2, 3)]);
    for (const [text, value] of [
      ["NaN", Number.NaN],
      ["-Infinity", Number.NEGATIVE_INFINITY],
    ] as const) {
      const bad = await writeModel(join(folder, "bad"), [f32("a", 1), f32("w", 1, value, 3)]);
      for (const merge of [slerpCheckpoints, lerpCheckpoints]) {
        await expect(merge({ ...defaults(), init, runs: [init, bad] })).rejects.toThrow(
          problem(`${file(bad)}: tensor "w" holds ${text} at element 1`),
        );
      }
    }
    expect((await readdir(folder)).sort()).toEqual(["bad", "init"]);
  });

  test("names a value that float16 cannot hold", async () => {
    const init = await writeModel(join(folder, "init"), [f32("w", 1, 70000)]);
    await expect(slerpCheckpoints({ ...defaults(), init, runs: [init], dtype: "float16" })).rejects.toThrow(
      problem('result as float16: tensor "w" holds Infinity at element 1'),
    );
  });

  test("keeps a model that is there, unless told to overwrite it", async () => {
    const options = defaults();
    await slerpCheckpoints(options);
    const before = await stat(options.out);
    await expect(slerpCheckpoints(options)).rejects.toThrow(
      modelProblem(`${options.out}: is there already; give a new folder, or overwrite: true (--overwrite)`),
    );
    expect((await stat(options.out)).ino).toBe(before.ino);
    await slerpCheckpoints({ ...options, eta: 0, overwrite: true });
    expect(await readModel(options.out)).toEqual(await readModel(options.init));
    expect(await readdir(folder)).toEqual(["out"]);
  });

  test("keeps the old model when the new one fails", async () => {
    const init = await writeModel(join(folder, "init"), [f32("w", 1)]);
    const bad = await writeModel(join(folder, "bad"), [f32("w", Number.NaN)]);
    const options = { ...defaults(), init, runs: [init] };
    await slerpCheckpoints(options);
    await expect(slerpCheckpoints({ ...options, runs: [init, bad], overwrite: true })).rejects.toThrow("holds NaN");
    expect([...(await readModel(options.out)).get("w")!]).toEqual([1]);
    expect((await readdir(folder)).sort()).toEqual(["bad", "init", "out"]);
  });

  test("never replaces an input, or a folder that holds one, by whatever name", async () => {
    await cp(join(root, "init"), join(folder, "runs", "init"), { recursive: true });
    await symlink(join(folder, "runs"), join(folder, "link"));
    const init = join(folder, "runs", "init");
    for (const out of [init, join(folder, "runs"), join(folder, "link"), join(folder, "link", "init")]) {
      await expect(slerpCheckpoints({ ...defaults(), init, out, overwrite: true })).rejects.toThrow(
        modelProblem(`${out}: would replace ${init}, which is an input; give another folder to write`),
      );
    }
  });

  test("never replaces a folder that holds other things than a model", async () => {
    const out = join(folder, "home");
    await mkdir(out);
    await writeFile(join(out, "letter.txt"), "dear");
    await expect(slerpCheckpoints({ ...defaults(), out, overwrite: true })).rejects.toThrow(
      `${out}: holds other files than a model`,
    );
    expect(await readFile(join(out, "letter.txt"), "utf8")).toBe("dear");
  });

  test("refuses an init without config.json, no run, an unknown dtype, an eta outside 0 to 1", async () => {
    const bare = join(folder, "bare");
    await writeCheckpoint(bare, [f32("w", 1)]);
    await expect(slerpCheckpoints({ ...defaults(), init: bare })).rejects.toThrow(
      modelProblem(`${bare}: has no config.json, expected a model folder`),
    );
    await expect(slerpCheckpoints({ ...defaults(), runs: [] })).rejects.toThrow(
      new RangeError("runs is empty, expected one model folder or more"),
    );
    await expect(slerpCheckpoints({ ...defaults(), dtype: "int8" as "input" })).rejects.toThrow(
      new RangeError('dtype should be one of float32, bfloat16, float16, input, got "int8"'),
    );
    await expect(slerpCheckpoints({ ...defaults(), eta: 2 })).rejects.toThrow(
      new RangeError("eta should be a number from 0 to 1, got 2"),
    );
  });
});
