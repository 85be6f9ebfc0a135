/** The model card of what a stage has trained. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { type Config, loadConfig, stringifyConfig } from "../../pipelines/config.js";
import { stageCard } from "../../pipelines/stage-card.js";

const cached = "/cache/hub/models--org--tiny/snapshots/0123456789012345678901234567890123456789";
let config: Config;
beforeAll(async () => {
  const path = join(mkdtempSync(join(tmpdir(), "heddle-card-")), "demo.yaml");
  const arithmetic = "test/fixtures/arithmetic";
  writeFileSync(
    path,
    `model: ${arithmetic}/student\nteacher: ${arithmetic}/teacher\ntrain_data: ${arithmetic}/train.jsonl\n` +
      "distill: {steps: 2}\nrl: {steps: 20}\nwarp: {}\n",
  );
  config = await loadConfig(path, { set: [], command: "warp" });
});

describe("stageCard", () => {
  test("says from what, by what, on what data, and the mean of the last tenth of the steps", () => {
    const log = Array.from({ length: 20 }, (_, i) => ({
      phase: "rl",
      iteration: 2,
      run: 1,
      step: i + 1,
      loss: -0.5,
      reward: i / 10,
      kl: i === 19 ? null : 0.5,
      tokens_per_second: 1000,
    }));
    const init = resolve("runs/demo/iteration-1/liti");
    const stage = "iteration-2/run-1";
    expect(stageCard(config, { stage, phase: "rl", init, isAdapter: false, steps: 20, log })).toBe(`---
library_name: transformers
tags:
  - reinforcement-learning
  - heddle
---

# demo/iteration-2/run-1

\`runs/demo/iteration-1/liti\` after 20 steps of reinforcement learning by heddle, with the section \`rl\` of the config below.

## Methods

- \`rl\`: REINFORCE with a leave-one-out baseline, against a moving average of the policy (WARP, arXiv 2406.16768)

## Models

- \`test/fixtures/arithmetic/student\`
- \`runs/demo/iteration-1/liti\`

## Data

- \`test/fixtures/arithmetic/train.jsonl\`

## Measured

- loss -0.5000, the mean of the last 2 of 20 training steps
- reward 1.8500, the mean of the last 2 of 20 training steps

## Recipe

\`\`\`yaml
${stringifyConfig(config).trimEnd()}
\`\`\`
`);
  });

  test("of an adapter says so, and links a base of the hub; of a distilled model names the teacher", () => {
    const ofHub = { ...config, model: cached };
    const log = [{ phase: "distill", step: 1, loss: 0.25 }];
    const trained = { stage: "distill", phase: "distill", init: cached, isAdapter: true, steps: 1, log } as const;
    const card = stageCard(ofHub, trained);
    expect(card).toContain(
      "---\nlibrary_name: peft\ntags:\n  - distillation\n  - heddle\nbase_model:\n  - org/tiny\n---\n\n# demo/distill\n\n" +
        "An adapter for `org/tiny`, learned in 1 step of distillation by heddle, with the section `distill` of the config below.\n",
    );
    expect(card).toContain(
      "## Models\n\n- [org/tiny](https://huggingface.co/org/tiny)\n- `test/fixtures/arithmetic/teacher`\n",
    );
    expect(card).toContain("- loss 0.2500, the last of 1 training steps\n");
    expect(card).toContain("model: org/tiny@0123456789012345678901234567890123456789\n");
  });
});
