/** What a stage is said to take, by arithmetic on a model of two layers. */
import { describe, expect, test } from "vitest";
import { parseModelConfig } from "../../model/config.js";
import { type PlannedStage, planMemory, totalBytes } from "../../pipelines/memory-plan.js";
import { describePlans } from "../../pipelines/plan.js";

const config = parseModelConfig("test", {
  model_type: "gemma2",
  vocab_size: 1000,
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  sliding_window: 6,
});
// A layer: q and o are 8 x 8, k and v 4 x 8, three matrices of 16 x 8, four norms of 8.
const LAYER = 2 * 64 + 2 * 32 + 3 * 128 + 4 * 8;
const [EMBEDDING, NORM] = [8000, 8];
const ALL = EMBEDDING + 2 * LAYER + NORM;

/** 4 prompts of 10 tokens, the longest of 10, completions of 5. */
const sizes = { rows: 4, samples: 1, maxNewTokens: 5, longestPrompt: 10, sharedPrefix: 0, promptTokens: 40 };
const student = { config, learns: () => true, adapter: {}, bytesOf: () => 4 as const };
const stage: PlannedStage = {
  phase: "distill",
  student,
  teacher: null,
  reward: null,
  sizes,
  part: sizes,
  isInLoops: false,
  device: "cpu",
  readsBfloat16: false,
};

// 40 tokens of prompts and 20 of completions, of which 4 predict nothing; rows of 10 + 5 - 1 slots.
const [M, W, S] = [40 + 20 - 4, 20, 14];
const PER_TOKEN = 8 * 8 + 8 * 2 * 4 + 8 * 16 + 2.5 * 2 * S;

describe("planMemory", () => {
  test("counts weights, moments, gradients, what the layers keep, logits, and keys and values", () => {
    expect(planMemory(stage)).toEqual({
      runtime: 0.83e9,
      weights: 4 * ALL,
      teacher: 0,
      reward: 0,
      optimiser: 8 * ALL,
      anchor: 0,
      gradients: 4 * ALL,
      activations: 4 * (M + W) * PER_TOKEN,
      loss: 4 * 4 * W * 1000,
      // Of K and V, 4 numbers a slot: a full layer holds 10 + 5 tokens a row, a sliding one 6 + 5.
      cache: 2 * 4 * 4 * 4 * (10 + 5 + 6 + 5),
    });
  });

  test("of a quantised base it counts the values of a layer twice, and the embedding that is loaded twice", () => {
    const isMatrix = (name: string) => name.includes("_proj");
    const bytesOf = (name: string) => (name.includes("embed") ? 1 : isMatrix(name) ? 0.516 : 4);
    const of = { ...stage, isInLoops: true, student: { ...student, learns: () => false, bytesOf: () => 4 } };
    const plan = planMemory({ ...of, student: { ...of.student, bytesOf } });
    const MATRICES = LAYER - 4 * 8;
    expect(plan.weights).toBeCloseTo(2 * EMBEDDING + 2 * (0.516 * MATRICES + 4 * 4 * 8) + 4 * NORM, 6);
    expect(plan.activations - planMemory(of).activations).toBe(2 * 4 * MATRICES);
    expect(plan.cache - planMemory(of).cache).toBe(4 * MATRICES);
  });

  test("of frozen layers it counts the weights alone, halved where they are bfloat16", () => {
    const learns = (name: string) => name.startsWith("model.layers.1.");
    const bytesOf = (name: string) => (learns(name) ? 4 : 2) as 2 | 4;
    const plan = planMemory({ ...stage, student: { ...student, learns, bytesOf } });
    expect(plan).toMatchObject({
      weights: 4 * LAYER + 2 * (ALL - LAYER),
      optimiser: 8 * LAYER,
      gradients: 4 * LAYER,
      activations: 4 * M * PER_TOKEN,
      // Sampling has float32 of the layer and the norm that are bfloat16.
      cache: planMemory(stage).cache + 4 * (LAYER + NORM),
      // The head is multiplied in float32.
      loss: 4 * 4 * W * 1000 + 4 * EMBEDDING,
    });
  });

  test("micro-batches need less and a sum of gradients; loops keep a layer's input; RL has a moving average", () => {
    const part = { ...sizes, rows: 1, promptTokens: 10 };
    const m = 10 + 5 - 1;
    expect(planMemory({ ...stage, phase: "rl", part, isInLoops: true })).toMatchObject({
      optimiser: 12 * ALL,
      anchor: 4 * ALL,
      gradients: 8 * ALL,
      activations: 2 * 4 * m * PER_TOKEN + 2 * 4 * m * 8,
      loss: 4 * 4 * 5 * 1000,
    });
  });

  test("nothing becomes float32 where products read bfloat16 as it is", () => {
    const halves = { ...student, learns: () => false, bytesOf: () => 2 as const };
    const teacher = { config, bytesOf: () => 2 as const, isShared: false };
    const plan = planMemory({ ...stage, teacher, student: halves, readsBfloat16: true });
    expect(plan).toMatchObject({ loss: 6 * 4 * W * 1000, cache: planMemory(stage).cache });
  });

  test("a teacher is held beside the student, and its logits too; sft samples nothing", () => {
    const teacher = { config, bytesOf: () => 2 as const, isShared: false };
    expect(planMemory({ ...stage, teacher })).toMatchObject({
      teacher: 2 * ALL,
      loss: 6 * 4 * W * 1000 + 4 * EMBEDDING,
    });
    expect(planMemory({ ...stage, phase: "sft" }).cache).toBe(0);
  });

  test("a reward model is held beside the policy, its head of one label too", () => {
    const reward = { config: { ...config, numLabels: 1 }, bytesOf: () => 2 };
    const [alone, plan] = [null, reward].map((of) => planMemory({ ...stage, phase: "rl", reward: of }));
    expect(plan).toEqual({ ...alone, reward: 2 * (ALL + 8) });
    expect(totalBytes(plan!)).toBe(totalBytes(alone!) + 2 * (ALL + 8));
    expect(describePlans([{ stage: "rl", bytes: plan!, total: 1e9, advice: [] }], 64e9)).toContain(
      "\n  weights of the reward model      1 MB\n",
    );
  });

  test("of an adapter it counts matrices, moments and gradients; a teacher that is its base takes nothing more", () => {
    // A of 2 x 8 and B of 8 x 2 in the second layer.
    const adapter = {
      "model.layers.1.self_attn.q_proj.lora_A.weight": [2, 8],
      "model.layers.1.self_attn.q_proj.lora_B.weight": [8, 2],
    };
    const teacher = { config, bytesOf: () => 4 as const, isShared: true };
    const plan = planMemory({ ...stage, teacher, student: { ...student, learns: () => false, adapter } });
    expect(plan).toMatchObject({
      weights: 4 * (ALL + 32),
      teacher: 0,
      optimiser: 8 * 32,
      gradients: 4 * 32,
      activations: 4 * M * PER_TOKEN,
    });
  });

  test("training and sampling take turns", () => {
    const plan = { ...planMemory(stage), cache: 5e9 };
    expect(totalBytes(plan)).toBe(0.83e9 + 12 * ALL + 5e9);
  });
});

describe("describePlans", () => {
  const bytes = { ...planMemory(stage), weights: 10e9, optimiser: 20e9, gradients: 10e9, activations: 2e9 };
  const plans = [{ stage: "distill", bytes, total: totalBytes(bytes), advice: ["first", "second", "third", "fourth"] }];

  test("is a table of what takes memory", () => {
    expect(describePlans(plans, 64e9).split("\n")).toEqual([
      "distill",
      "  TensorFlow, Node, programs     830 MB",
      "  weights of the model         10.00 GB",
      "  optimiser                    20.00 GB",
      "  gradients                    10.00 GB",
      "  activations                   2.00 GB",
      "  logits of the loss               1 MB",
      "  keys and values (sampling)       1 MB",
      "  at most, together            42.83 GB",
      "",
      "this device has 64.00 GB",
      "",
    ]);
  });

  test("says what to lower where it is too much", () => {
    expect(() => describePlans(plans, 24e9)).toThrow(
      "this device has 24.00 GB\ndistill needs 42.83 GB, expected at most 24.00 GB. What would help most: first; second; third",
    );
  });
});
