// Models of the hub wherever a folder is taken.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command } from "@commander-js/extra-typings";
import { openCheckpoint } from "safetensors-ts";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { pinnedName } from "../../hub/name.js";
import { loadConfig } from "../../pipelines/config.js";
import { modelFolder } from "../../pipelines/flags.js";
import { fetchModelFlags } from "../../pipelines/hub-models.js";
import { adapterOption } from "../../pipelines/row-command.js";
import { inRun } from "../../pipelines/stages.js";
import { heddle } from "../pipelines/command.js";
import { filesOf, fixture, useHub } from "./hub-folder.js";
import { type FakeHub, startHub } from "./server.js";

let hub: FakeHub;
let home: string;
let commit: string;
beforeAll(async () => {
  hub = await startHub();
  commit = hub.addModel("org/tiny", filesOf(fixture("gemma2-tiny")));
  hub.addModel("org/lora", filesOf(fixture("gemma2-tiny-lora")));
});
beforeEach(() => {
  home = useHub(hub);
});
afterAll(() => hub.close());

describe("a model argument", () => {
  test("of a command", async () => {
    const flags = ["--model", fixture("gemma2-tiny"), "--out", "out", "--eta", "0.5"];
    const { code, stderr } = await heddle(home, "liti", "--init", "org/tiny", ...flags);
    expect([code, stderr]).toEqual([0, expect.stringContaining("pull org/tiny: ")]);
    expect(await heddle(home, "liti", "--init", "runs/none", ...flags)).toMatchObject({
      code: 2,
      stderr: `error: no such folder, and not from the hub: runs/none: not found at ${hub.url}: check the spelling; or the token of HF_TOKEN may not see it\n`,
    });
  });

  test("of heddle inspect: a model or an adapter, and no name of a file", async () => {
    const { code, stdout } = await heddle(home, "inspect", "org/lora");
    expect([code, stdout]).toEqual([
      0,
      expect.stringContaining("layers.0.self_attn.k_proj.lora_A.weight  F32  [8, 64]"),
    ]);
    const file = "folder/model.safetensors";
    expect(await heddle(home, "inspect", file)).toMatchObject({
      code: 2,
      stderr: `error: command-argument value '${file}' is invalid for argument 'path'. no such file or folder (looked in ${home})\n`,
    });
  });

  describe("that is an adapter alone", () => {
    const adapter = filesOf(fixture("gemma2-tiny-lora"));
    const onBase = (base: string, revision: string | null) => ({
      ...adapter,
      "adapter_config.json": JSON.stringify({
        ...JSON.parse(`${adapter["adapter_config.json"]}`),
        base_model_name_or_path: base,
        revision,
      }),
    });
    /** --model and --adapter that a command gets. */
    const fetched = async (...args: string[]) => {
      const command = new Command("score")
        .requiredOption("--model <dir>", "", modelFolder)
        .addOption(adapterOption())
        .exitOverride();
      command.parse(args, { from: "user" });
      await fetchModelFlags(command);
      return command.opts();
    };

    test("gets its base from the hub, at the revision that it names", async () => {
      hub.addModel("org/on-tiny", onBase("org/tiny", commit));
      const { model, adapter } = await fetched("--model", "org/on-tiny");
      expect(pinnedName(model)).toBe(`org/tiny@${commit}`);
      expect(pinnedName(adapter!)).toMatch(/^org\/on-tiny@/);
      expect(await fetched("--model", "org/tiny", "--adapter", "org/on-tiny")).toEqual({ model, adapter });
    });

    test("whose base is a folder is left as it is", async () => {
      const model = fixture("gemma2-tiny-lora");
      expect(await fetched("--model", model)).toEqual({ model });
    });

    test("whose base is nowhere says so", async () => {
      hub.addModel("org/on-none", onBase("org/none", null));
      await expect(fetched("--model", "org/on-none")).rejects.toThrow(
        /\/adapter_config\.json: "base_model_name_or_path": no such folder, and not from the hub: org\/none: not found at/,
      );
    });
  });

  test("of heddle convert, which takes files, too", async () => {
    const { code, stderr } = await heddle(home, "convert", `org/tiny@${commit}`, "half", "--dtype", "float16");
    expect([code, stderr]).toEqual([0, expect.stringContaining(`pull org/tiny@${commit}: `)]);
    expect(readFileSync(join(home, "half", "config.json"), "utf8")).toContain('"torch_dtype": "float16"');
    expect(await heddle(home, "convert", "org/tiny.gguf", "out")).toMatchObject({
      code: 2,
      stderr:
        "error: command-argument value 'org/tiny.gguf' is invalid for argument 'model'. " +
        `no such file or folder (looked in ${home})\n`,
    });
  });

  test("of a recipe, with a revision and an adapter; the card names it", async () => {
    const model = `org/tiny@${commit}+org/lora`;
    writeFileSync(
      join(home, "r.yml"),
      `merge_method: linear\nmodels: [{model: "${model}", parameters: {weight: 1}}]\n`,
    );
    expect(await heddle(home, "merge", "r.yml", "out")).toMatchObject({ code: 0, stdout: "wrote out\n" });
    expect(readFileSync(join(home, "out", "README.md"), "utf8")).toContain("base_model:\n  - org/tiny\n  - org/lora\n");
    const merged = await openCheckpoint(join(home, "out"));
    await merged.close();
    expect(merged.tensors.length).toBeGreaterThan(10);

    writeFileSync(
      join(home, "none.yml"),
      "merge_method: linear\nmodels: [{model: org/none}, {model: nowhere}]\nparameters: {weight: 1}\n",
    );
    expect(await heddle(home, "merge", "none.yml", "out2")).toMatchObject({
      code: 2,
      stderr: `error: org/none: no such folder, and not from the hub: org/none: not found at ${hub.url}: check the spelling; or the token of HF_TOKEN may not see it\nnowhere: no such folder\n`,
    });
  });

  test("of a config: a run keeps the commit that it began with, offline too", async () => {
    const config = join(home, "run.yaml");
    writeFileSync(join(home, "rows.jsonl"), '{"prompt": "a", "completion": "b"}\n');
    writeFileSync(
      config,
      `model: org/tiny\ntrain_data: ${home}/rows.jsonl\noutput_dir: ${home}/run\nsft: {steps: 1}\n`,
    );
    const load = () => loadConfig(config, { set: [], command: "sft" });
    const before = await load();
    expect(pinnedName(before.model)).toBe(`org/tiny@${commit}`);
    await inRun(before, async () => {});
    expect(readFileSync(join(home, "run", "config.yaml"), "utf8")).toContain(`model: org/tiny@${commit}\n`);

    hub.addModel("org/tiny", {
      ...filesOf(fixture("gemma2-tiny")),
      "added_tokens.json": "{}",
    });
    process.env.HF_HUB_OFFLINE = "1";
    await inRun(await load(), async () => {});
    process.env.HF_HUB_OFFLINE = "0";
    await inRun(await load(), async () => {});
    const other = await loadConfig(config, { set: [`output_dir=${home}/other`], command: "sft" });
    expect(pinnedName(other.model)).toMatch(/^org\/tiny@/);
    expect(pinnedName(other.model)).not.toBe(`org/tiny@${commit}`);
  });

  test("of a config: the teacher, too", async () => {
    const config = join(home, "run.yaml");
    writeFileSync(join(home, "rows.jsonl"), '{"prompt": "a"}\n');
    writeFileSync(
      config,
      `model: ${fixture("gemma2-tiny")}\nteacher: org/tiny\ntrain_data: ${home}/rows.jsonl\ndistill: {steps: 1}\n`,
    );
    const { model, teacher } = await loadConfig(config, { set: [], command: "distill" });
    expect([model, pinnedName(teacher)]).toEqual([fixture("gemma2-tiny"), expect.stringMatching(/^org\/tiny@/)]);
  });

  test("of a config: the reward model, too; the run keeps its commit", async () => {
    const config = join(home, "run.yaml");
    writeFileSync(join(home, "rows.jsonl"), '{"prompt": "a"}\n');
    writeFileSync(
      config,
      `model: ${fixture("gemma2-tiny")}\ntrain_data: ${home}/rows.jsonl\noutput_dir: ${home}/run\n` +
        "rl: {steps: 1, reward: {model: org/tiny}}\n",
    );
    const loaded = await loadConfig(config, { set: [], command: "rl" });
    const reward = loaded.rl.reward as { model: string };
    expect(pinnedName(reward.model)).toMatch(/^org\/tiny@/);
    await inRun(loaded, async () => {});
    expect(readFileSync(join(home, "run", "config.yaml"), "utf8")).toContain(`model: ${pinnedName(reward.model)}\n`);
    await expect(loadConfig(config, { set: ["rl.reward.model=org/none"], command: "rl" })).rejects.toThrow(
      "--set rl.reward.model=org/none: no such folder, and not from the hub: org/none: not found",
    );
  });

  test("of a config, on no hub", async () => {
    const config = join(home, "run.yaml");
    writeFileSync(join(home, "rows.jsonl"), '{"prompt": "a", "completion": "b"}\n');
    writeFileSync(config, `model: org/none\ntrain_data: ${home}/rows.jsonl\nsft: {steps: 1}\n`);
    await expect(loadConfig(config, { set: [], command: "sft" })).rejects.toThrow(
      `${config}:1: model: no such folder, and not from the hub: org/none: not found at ${hub.url}: check the spelling; or the token of HF_TOKEN may not see it`,
    );
  });
});
