import { describe, expect, test } from "vitest";
import { modelCard, recipeAsRun } from "../../merge/model-card.js";

describe("modelCard", () => {
  test("tells the Hub and the reader what the model is made of, and how", () => {
    const card = modelCard({
      library: "transformers",
      data: [],
      measured: [],
      title: "gemma-2-2b-warp",
      summary: "A merge of language models.",
      models: ["google/gemma-2-2b-it", "./runs/a", "runs/b+adapter"],
      baseModels: ["google/gemma-2-2b-it"],
      tags: ["merge", "heddle"],
      methods: [{ name: "warp", description: "SLERP of task vectors, then LITI (arXiv 2406.16768)" }],
      recipe: "merge_method: warp\nmodels:\n  - model: ./runs/a\n",
    });
    expect(card).toBe(`---
library_name: transformers
tags:
  - merge
  - heddle
base_model:
  - google/gemma-2-2b-it
---

# gemma-2-2b-warp

A merge of language models.

## Methods

- \`warp\`: SLERP of task vectors, then LITI (arXiv 2406.16768)

## Models

- [google/gemma-2-2b-it](https://huggingface.co/google/gemma-2-2b-it)
- \`./runs/a\`
- \`runs/b+adapter\`

## Recipe

\`\`\`yaml
merge_method: warp
models:
  - model: ./runs/a
\`\`\`
`);
  });

  test("leaves out what there is nothing of", () => {
    const empty = {
      library: "transformers" as const,
      models: [],
      baseModels: [],
      tags: ["heddle"],
      methods: [],
      data: [],
      measured: [],
      recipe: null,
    };
    expect(modelCard({ title: "x", summary: "A model.", ...empty })).toBe(
      "---\nlibrary_name: transformers\ntags:\n  - heddle\n---\n\n# x\n\nA model.\n",
    );
  });

  test("text that YAML or markdown would read otherwise stays what it is", () => {
    const card = modelCard({
      library: "transformers",
      data: [],
      measured: [],
      title: "x",
      summary: "A model.",
      models: [],
      baseModels: ["yes", "a: b"],
      tags: ["merge"],
      methods: [],
      recipe: "chat_template: |\n  ```{{ x }}```\n",
    });
    expect(card).toContain('base_model:\n  - "yes"\n  - "a: b"\n');
    expect(card).toContain("````yaml\nchat_template: |\n  ```{{ x }}```\n````\n");
  });
});

test("recipeAsRun: what was set beside a recipe stands behind it", () => {
  expect(recipeAsRun("a: 1\n", [], 0)).toBe("a: 1");
  expect(recipeAsRun("a: 1\n", ["a=2", "b=|\n  x"], 3)).toBe(
    "a: 1\n# with --set a=2\n# with --set b=|\n#   x\n# with --seed 3",
  );
});
