import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ConfigCommand, ConfigError, loadConfig, stringifyConfig } from "../../pipelines/config.js";
import { isUserError, UserError } from "../../pipelines/errors.js";

const head = "model: test/fixtures/arithmetic/student\ntrain_data: test/fixtures/arithmetic/train.jsonl\n";
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "heddle-config-"));
  await mkdir(join(folder, "empty"));
});
afterAll(() => rm(folder, { recursive: true }));

async function load<C extends ConfigCommand>(text: string, command: C, set: string[] = []) {
  const path = join(folder, "run.yaml");
  await writeFile(path, text);
  return loadConfig(path, { set, command });
}

/** The lines of the error, with run.yaml for the path of the file. */
async function complaint(text: string, command: ConfigCommand, set: string[] = []): Promise<string[]> {
  const error = await load(text, command, set).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(ConfigError);
  expect(error).toBeInstanceOf(UserError);
  expect(isUserError(error)).toBe(true);
  return (error as Error).message.replaceAll(`${folder}/`, "").split("\n");
}

describe("loadConfig", () => {
  test("fills in the defaults", async () => {
    const config = await load(`${head}rl:\n  steps: 5\n`, "rl");
    expect(config).toEqual({
      model: "test/fixtures/arithmetic/student",
      teacher: null,
      train_data: "test/fixtures/arithmetic/train.jsonl",
      eval_data: null,
      output_dir: "runs/run",
      seed: 0,
      system: "error",
      allow_control_tokens: false,
      max_new_tokens: 128,
      trainable: null,
      lora: null,
      load_in_4bit: false,
      load_in_8bit: false,
      compute_dtype: "float32",
      teacher_dtype: "float32",
      gradient_checkpointing: false,
      rl: {
        steps: 5,
        learning_rate: 1e-6,
        weight_decay: 0,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        max_grad_norm: 1,
        save_every: 100,
        gradient_accumulation_steps: 1,
        max_new_tokens: 128,
        trainable: null,
        lora: null,
        gradient_checkpointing: false,
        prompts: 8,
        samples: 2,
        reward: "exact_match",
        beta_kl: 0.1,
        mu: 0.01,
        temperature: 1,
      },
      eval: { samples: 1, batch_size: 32, limit: null, max_new_tokens: 128 },
    });
  });

  test("gives distillation and merging the defaults of GKD and WARP", async () => {
    const text = `${head}teacher: http://localhost:8000\nrl: {steps: 1}\nwarp: {}\ndistill:\n  steps: 1\n`;
    const config = await load(text, "warp");
    expect(config.warp).toEqual({ iterations: 1, runs: 2, eta: 0.3, granularity: "layer" });
    expect(config.distill).toMatchObject({ beta: 0.5, lmbda: 1, seq_kd: false, temperature: 1, loss_temperature: 1 });
    expect(config.distill).toMatchObject({ learning_rate: 2e-5, batch_size: 8, loss_add_tail: true });
  });

  test("says what learns at the top level, and otherwise in a section", async () => {
    const text = `${head}trainable: ["layers\\\\.1\\\\."]\nrl: {steps: 1}\nsft: {steps: 1, trainable: null}\n`;
    const config = await load(text, "rl");
    expect([config.rl.trainable, config.sft?.trainable]).toEqual([["layers\\.1\\."], null]);
  });

  test("refuses patterns that are none, and a batch that does not split into parts of one size", async () => {
    const text = `${head}trainable: ["(", norm]\nrl: {steps: 1, prompts: 6, gradient_accumulation_steps: 4}\nsft: {steps: 1, gradient_accumulation_steps: 3, trainable: norm}\n`;
    const patterns = "a list of regular expressions for the names of tensors, or null for all of them";
    expect(await complaint(text, "rl")).toEqual([
      `run.yaml:3: trainable[0]: expected ${patterns}, got "("`,
      "run.yaml:4: rl.gradient_accumulation_steps: expected a divisor of prompts, got 4",
      `run.yaml:5: sft.trainable: expected ${patterns}, got "norm"`,
    ]);
  });

  test("hands max_new_tokens down to the sections that have none", async () => {
    const text = `${head}max_new_tokens: 10\nrl: {steps: 1}\nsft: {steps: 1, max_new_tokens: 20}\n`;
    const config = await load(text, "rl");
    const budget: number = config.rl.max_new_tokens;
    expect([budget, config.sft?.max_new_tokens, config.eval.max_new_tokens]).toEqual([10, 20, 10]);
  });

  test("prints three mistakes of one file, each with line, key and what was expected", async () => {
    const text = `${head}rl:\n  steps: many\n  sampels: 4\n\n  beta_kl: -1\n`;
    expect(await complaint(text, "rl")).toEqual([
      'run.yaml:4: rl.steps: expected a whole number of at least 1, got "many"',
      "run.yaml:5: rl.sampels: unknown key; did you mean samples?",
      "run.yaml:7: rl.beta_kl: expected a number of at least 0, or an expression of step, steps, iteration, got -1",
    ]);
  });

  test("finds mistakes of every kind at once", async () => {
    const text = [
      "model: missing",
      `train_data: ${folder}`,
      "seed: 0.5",
      "system: ignore",
      "teacher: LICENSE",
      "seed: 1",
      "distill:",
      "  steps: 10",
      "  learning_rate: 1e-4 * lr",
      "  seq_kd: 1",
      "warp: []",
      "eval:",
      "  limit: 0",
    ].join("\n");
    expect(await complaint(text, "warp", ["rl.samples=1", "nonsense"])).toEqual([
      'run.yaml:1: model: expected a folder with config.json, got "missing", which does not exist',
      `run.yaml:2: train_data: expected a JSONL file, got "${folder}", which is a folder`,
      'run.yaml:4: system: expected one of error, fold, drop, got "ignore"',
      'run.yaml:5: teacher: expected a folder with config.json or an http(s) URL, got "LICENSE", which is a file',
      "run.yaml:6: seed: expected one value, got a second; the first is on line 3",
      'run.yaml:9: distill.learning_rate: expected an expression, got "1e-4 * lr": lr is not known; expected one of step, steps, iteration, layer, layers, pi, e',
      "run.yaml:10: distill.seq_kd: expected true or false, got 1",
      "run.yaml:11: warp: expected a section of keys, got a list",
      "run.yaml:13: eval.limit: expected a whole number of at least 1, got 0",
      "--set rl.samples=1: rl.steps: expected a whole number of at least 1, got nothing",
      "--set rl.samples=1: expected a whole number of at least 2, got 1",
      "--set nonsense: expected KEY=VALUE, such as rl.steps=50",
    ]);
  });

  test.each<[ConfigCommand, string[]]>([
    ["sft", ["run.yaml:1: sft: expected a section of keys, which `heddle sft` needs, got nothing"]],
    ["rl", ["run.yaml:1: rl: expected a section of keys, which `heddle rl` needs, got nothing"]],
    [
      "distill",
      [
        "run.yaml:1: teacher: expected a model folder or an http(s) URL, which `heddle distill` needs, got nothing",
        "run.yaml:1: distill: expected a section of keys, which `heddle distill` needs, got nothing",
      ],
    ],
    [
      "warp",
      [
        "run.yaml:1: teacher: expected a model folder or an http(s) URL, which `heddle warp` needs, got nothing",
        "run.yaml:1: distill: expected a section of keys, which `heddle warp` needs, got nothing",
        "run.yaml:1: rl: expected a section of keys, which `heddle warp` needs, got nothing",
        "run.yaml:1: warp: expected a section of keys, which `heddle warp` needs, got nothing",
      ],
    ],
  ])("knows what %s needs", async (command, lines) => {
    expect(await complaint(head, command)).toEqual(lines);
  });

  test("reports an empty file by the keys it lacks", async () => {
    expect(await complaint("# nothing yet\n", "sft")).toEqual([
      "run.yaml:1: model: expected a folder with config.json, got nothing",
      "run.yaml:1: train_data: expected a JSONL file, got nothing",
      "run.yaml:1: sft: expected a section of keys, which `heddle sft` needs, got nothing",
    ]);
    expect(await complaint("- model\n", "sft")).toEqual(["run.yaml:1: expected a mapping of keys, got a list"]);
    expect(await complaint(`${head}sft:\n`, "sft")).toEqual([
      "run.yaml:3: sft: expected a section of keys, got nothing",
    ]);
  });

  test("refuses a folder that is no model, and a file that is not there", async () => {
    const text = `model: ${folder}/empty\ntrain_data: rows.jsonl\nsft: {steps: 1}\n`;
    expect(await complaint(text, "sft")).toEqual([
      'run.yaml:1: model: expected a folder with config.json, got "empty", which has none',
      'run.yaml:2: train_data: expected a JSONL file, got "rows.jsonl", which does not exist',
    ]);
    await expect(loadConfig("missing.yaml", { set: [], command: "sft" })).rejects.toThrow(
      /^missing.yaml: expected a config file, got: ENOENT/,
    );
  });
});

describe("unknown keys", () => {
  test.each([
    ["lr: 1", "unknown key; did you mean learning_rate?"],
    ["num_generations: 4", "unknown key; did you mean samples?"],
    ["Steps: 4", "unknown key; did you mean steps?"],
    ["granularity: layer", "unknown key; did you mean warp.granularity?"],
    ["seed: 1", "unknown key; did you mean seed at the top level?"],
    ["batch_size: 1", "unknown key; did you mean sft.batch_size or distill.batch_size or eval.batch_size?"],
    [
      "constructor: 1",
      "unknown key; expected one of steps, learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm, " +
        "save_every, gradient_accumulation_steps, max_new_tokens, trainable, lora, gradient_checkpointing, prompts, samples, reward, beta_kl, mu, temperature",
    ],
  ])("%s in rl", async (line, problem) => {
    const key = line.split(":")[0];
    expect(await complaint(`${head}rl:\n  steps: 1\n  ${line}\n`, "rl")).toEqual([`run.yaml:5: rl.${key}: ${problem}`]);
  });

  test("at the top level", async () => {
    const text = `${head}rl: {steps: 1}\nmodel_name_or_path: x\nbeta_kl: 0\n__proto__: {}\n`;
    expect(await complaint(text, "rl")).toEqual([
      "run.yaml:4: model_name_or_path: unknown key; did you mean model?",
      "run.yaml:5: beta_kl: unknown key; did you mean rl.beta_kl?",
      "run.yaml:6: __proto__: unknown key; expected one of model, teacher, train_data, eval_data, output_dir, seed, system, " +
        "allow_control_tokens, max_new_tokens, trainable, lora, load_in_4bit, load_in_8bit, compute_dtype, teacher_dtype, gradient_checkpointing, sft, distill, rl, warp, eval",
    ]);
  });
});

describe("load_in_4bit", () => {
  test.each([
    [
      "load_in_4bit: true",
      "run.yaml:4: load_in_4bit: expected false where all of the model learns: set lora or trainable, got true",
    ],
    [
      "load_in_8bit: true\nload_in_4bit: true\nlora: {}",
      "run.yaml:4: load_in_8bit: expected false beside load_in_4bit, got true",
    ],
  ])("%s is an error", async (lines, problem) => {
    expect(await complaint(`${head}rl: {steps: 1}\n${lines}\n`, "rl")).toEqual([problem]);
  });

  test("goes with trainable", async () => {
    const config = await load(`${head}rl: {steps: 1}\ntrainable: [norm]\nload_in_4bit: true\n`, "rl");
    expect(config).toMatchObject({ load_in_4bit: true, load_in_8bit: false });
  });
});

describe("lora", () => {
  test("has the presets of PEFT, on all projections; stages may have their own, or none", async () => {
    const text = `${head}lora: {r: 16}\nrl: {steps: 1}\nsft: {steps: 1, lora: null}\ndistill: {steps: 1, lora: {target_modules: [q_proj]}}\n`;
    const config = await load(text, "rl");
    const presets = { lora_dropout: 0, use_rslora: false, modules_to_save: [], lora_alpha: 8 };
    expect(config.rl.lora).toEqual({ ...presets, r: 16, target_modules: "all-linear" });
    expect(config.sft!.lora).toBe(null);
    expect(config.distill!.lora).toEqual({ ...presets, r: 8, target_modules: ["q_proj"] });
  });

  test("says what is wrong in it", async () => {
    const wrong =
      "lora: {r: 0, lora_alpa: 1, lora_dropout: 1, target_modules: all, use_rslora: 1, modules_to_save: norm, steps: 1}";
    expect(await complaint(`${head}${wrong}\nrl: {steps: 1}\n`, "rl")).toEqual([
      "run.yaml:3: lora.r: expected a whole number of at least 1, got 0",
      "run.yaml:3: lora.lora_dropout: expected a number of at least 0 and below 1, got 1",
      'run.yaml:3: lora.target_modules: expected all-linear, or a list of names of modules, such as q_proj, got "all"',
      "run.yaml:3: lora.use_rslora: expected true or false, got 1",
      'run.yaml:3: lora.modules_to_save: expected a list of names of modules, such as embed_tokens, got "norm"',
      "run.yaml:3: lora.lora_alpa: unknown key; did you mean lora_alpha?",
      "run.yaml:3: lora.steps: unknown key; did you mean sft.steps or distill.steps or rl.steps?",
    ]);
    const both = `${head}trainable: [norm]\nlora: {}\nrl: {steps: 1}\nsft: {steps: 1, trainable: null}\n`;
    expect(await complaint(both, "rl")).toEqual([
      "run.yaml:3: trainable: expected null beside lora, which says what learns, got a list",
    ]);
    const inStage = `${head}rl: {steps: 1, lora: {}, trainable: [norm]}\n`;
    expect(await complaint(inStage, "rl")).toEqual([
      "run.yaml:3: rl.trainable: expected null beside lora, which says what learns, got a list",
    ]);
  });
});

describe("rl.reward", () => {
  const model = "test/fixtures/models/gemma2-tiny-reward";
  const rl = (reward: string) => `${head}rl:\n  steps: 1\n  reward: ${reward}\n`;

  test("is exact_match, or a reward model in float32 unless told otherwise", async () => {
    expect((await load(rl("exact_match"), "rl")).rl.reward).toBe("exact_match");
    expect((await load(rl(`{model: ${model}}`), "rl")).rl.reward).toEqual({ model, dtype: "float32" });
    const half = await load(rl("exact_match"), "rl", [`rl.reward={model: ${model}, dtype: bfloat16}`]);
    expect(half.rl.reward).toEqual({ model, dtype: "bfloat16" });
  });

  test.each([
    ["exact", 'rl.reward: expected exact_match, or a section with model: a reward model\'s folder, got "exact"'],
    ["{}", "rl.reward.model: expected a folder with config.json, got nothing"],
    [`{model: ${model}, dtype: half}`, 'rl.reward.dtype: expected one of float32, bfloat16, got "half"'],
    [`{model: ${model}, dtyp: bfloat16}`, "rl.reward.dtyp: unknown key; did you mean dtype?"],
    [`{model: ${model}, beta_kl: 1}`, "rl.reward.beta_kl: unknown key; did you mean rl.beta_kl?"],
    ["{model: nowhere}", 'rl.reward.model: expected a folder with config.json, got "nowhere", which does not exist'],
  ])("%s is refused with what was expected", async (reward, problem) => {
    expect(await complaint(rl(reward), "rl")).toEqual([`run.yaml:5: ${problem}`]);
  });
});

describe("YAML", () => {
  test.each([
    [
      "rl:\n  steps: [1,\n",
      "run.yaml:3: expected YAML, got: Flow sequence in block collection must be sufficiently indented and end with a ]",
    ],
    ["rl:\n\tsteps: 1\n", "run.yaml:2: expected YAML, got: Tabs are not allowed as indentation"],
    ["rl:\n  steps: *count\n", "run.yaml:2: expected YAML, got: *count, but there is no &count before it"],
    ["rl:\n  steps: !int 3\n", "run.yaml:2: expected YAML, got: Unresolved tag: !int"],
  ])("%j is refused with its line", async (text, line) => {
    expect((await complaint(text, "rl"))[0]).toBe(line);
  });

  test("anchors and aliases work, and a mistake behind an alias is placed where it is written", async () => {
    const config = await load(`${head}sft: &one {steps: 1}\nrl: *one\n`, "rl");
    expect(config.rl.steps).toBe(1);
    expect(await complaint(`${head}sft: &one {steps: 0}\nrl: *one\n`, "rl")).toEqual([
      "run.yaml:3: sft.steps: expected a whole number of at least 1, got 0",
      "run.yaml:3: rl.steps: expected a whole number of at least 1, got 0",
    ]);
  });
});

describe("expressions", () => {
  const withRate = (rate: string) => `${head}rl:\n  steps: 50\n  learning_rate: ${rate}\n`;

  test("stay as they are written", async () => {
    const rate = "1e-4 * min(1, step / 10)";
    expect((await load(withRate(rate), "rl")).rl.learning_rate).toBe(rate);
  });

  test.each([
    ["1e-4 / (50 - step)", '"1e-4 / (50 - step)" is Infinity at step 50, expected a finite number'],
    ["1e-4 * layer", '"1e-4 * layer": layer has no value here; expected only step, steps, iteration'],
  ])("%s is refused before anything runs", async (rate, problem) => {
    expect(await complaint(withRate(rate), "rl")).toEqual([
      `run.yaml:5: rl.learning_rate: expected an expression, got ${problem}`,
    ]);
  });

  test("must stay in range at every step", async () => {
    expect(await complaint(withRate("1e-4 * (49 - step)"), "rl")).toEqual([
      'run.yaml:5: rl.learning_rate: expected a number of at least 0, got -0.0001 from "1e-4 * (49 - step)" at step 50, steps 50, iteration 1',
    ]);
  });

  test("of eta know layers and iterations, not steps", async () => {
    const text = (eta: string) => `${head}rl: {steps: 1}\nwarp:\n  iterations: 3\n  eta: ${eta}\n`;
    expect((await load(text("0.1 * iteration * layer / layers"), "rl")).warp?.eta).toBe(
      "0.1 * iteration * layer / layers",
    );
    expect(await complaint(text("0.5 * iteration"), "rl")).toEqual([
      'run.yaml:6: warp.eta: expected a number from 0 to 1, got 1.5 from "0.5 * iteration" at iteration 3, layer 0, layers 4',
    ]);
    expect(await complaint(text("step / 10"), "rl")).toEqual([
      'run.yaml:6: warp.eta: expected an expression, got "step / 10": step has no value here; expected only iteration, layer, layers',
    ]);
  });

  test("are not for counts", async () => {
    expect(await complaint(`${head}rl:\n  steps: 2 * 3\n`, "rl")).toEqual([
      'run.yaml:4: rl.steps: expected a whole number of at least 1, got "2 * 3"',
    ]);
  });
});

describe("--set", () => {
  const text = `${head}rl:\n  steps: 5\n`;

  test("overrides the file with a YAML value", async () => {
    const set = ["rl.steps=50", "rl.learning_rate=1e-4 * min(1, step / 10)", "eval={limit: 3, samples: 2}", "seed=7"];
    const config = await load(text, "rl", set);
    expect(config.rl).toMatchObject({ steps: 50, learning_rate: "1e-4 * min(1, step / 10)" });
    expect(config.eval).toMatchObject({ limit: 3, samples: 2 });
    expect(config.seed).toBe(7);
  });

  test("makes sections that the file lacks", async () => {
    expect((await load(head, "sft", ["sft.steps=3"])).sft.steps).toBe(3);
  });

  test("mends a mistake of the file", async () => {
    expect((await load(`${head}rl:\n  steps: x\n`, "rl", ["rl.steps=3"])).rl.steps).toBe(3);
  });

  test.each([
    ["rl.steps=many", 'expected a whole number of at least 1, got "many"'],
    ["rl.steps=", "expected a whole number of at least 1, got nothing"],
    ["rl.stepz=3", "unknown key; did you mean steps?"],
    ["rl={stepz: 3, steps: 1}", "rl.stepz: unknown key; did you mean steps?"],
    ["rl.learning_rate=1 / 0", 'expected an expression, got "1 / 0" is Infinity, expected a finite number'],
    ["model=nowhere", 'expected a folder with config.json, got "nowhere", which does not exist'],
    ["model.path=nowhere", "expected a key in a section, but model is none"],
    ["rl.steps", "expected KEY=VALUE, such as rl.steps=50"],
    ["rl.steps=[1", "expected a YAML value after =, got: Flow sequence must end with a ]"],
  ])("%s is refused by its own text", async (setting, problem) => {
    expect(await complaint(text, "rl", [setting])).toEqual([`--set ${setting}: ${problem}`]);
  });
});

describe("keys that depend on each other", () => {
  test("a teacher behind a URL writes no completions", async () => {
    const text = `${head}teacher: https://teacher.example/v1\ndistill:\n  steps: 1\n  seq_kd: true\n`;
    expect(await complaint(`${text}  lmbda: 0.5\n`, "distill")).toEqual([
      "run.yaml:6: distill.seq_kd: expected false, since a teacher behind a URL writes no completions to learn from, got true",
    ]);
    expect((await load(text, "distill")).distill.seq_kd).toBe(true);
  });
});

describe("stringifyConfig", () => {
  test("writes what loads to the same config again", async () => {
    const config = await loadConfig("examples/demo.yaml", { set: [], command: "warp" });
    const path = join(folder, "config.yaml");
    await writeFile(path, stringifyConfig(config));
    expect(await loadConfig(path, { set: [], command: "warp" })).toStrictEqual(config);
  });
});

describe("examples", () => {
  test("demo.yaml runs for every number of steps", async () => {
    const config = await loadConfig("examples/demo.yaml", { set: ["distill.steps=1", "rl.steps=1"], command: "warp" });
    expect(config.output_dir).toBe("runs/demo");
  });

  test("lora.yaml has an adapter that learns", async () => {
    const config = await loadConfig("examples/lora.yaml", { set: [], command: "distill" });
    expect(config.distill.lora).toMatchObject({ r: 16, target_modules: "all-linear" });
  });

  test.each<[ConfigCommand, string]>([
    ["sft", "train_data=test/fixtures/arithmetic/train.jsonl"],
    ["distill", "seed=0"],
    ["rl", "model=test/fixtures/arithmetic/student"],
  ])("%s.yaml is valid once what it starts from is there", async (command, set) => {
    const config = await loadConfig(`examples/${command}.yaml`, { set: [set], command });
    expect(config.output_dir).toBe(`runs/${command}`);
  });
});
