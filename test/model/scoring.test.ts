/**
 * Fast path = slow path: logits and gradients of a batch that shares prompts, packs completions and pads are those of
 * one forward pass per prompt and completion.
 */
import { jit, tf } from "tfjs-jit";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type Batch, listSequences, type Sequence, sizesOf } from "../../model/batch.js";
import { type ModelConfig, readModelConfig } from "../../model/config.js";
import type { Weights } from "../../model/forward.js";
import { type BatchTensors, batchTensors, completionLogits } from "../../model/scoring.js";
import { parameterShapes } from "../../model/shapes.js";
import { loadWeights } from "../../model/weights.js";
import { completionLogitsAlone, gradients, largestRelativeDifference } from "./alone.js";
import { fixture, largestDifference } from "./golden.js";

const dir = fixture("models/gemma2-tiny");
let config: ModelConfig;
let weights: Weights;
beforeAll(async () => {
  config = await readModelConfig(dir);
  weights = await loadWeights(dir, config);
});
afterAll(() => tf.dispose(weights as tf.TensorContainer));
afterEach(() => vi.unstubAllEnvs());

/** The model without the layers after these. */
function firstLayers(layers: number): { config: ModelConfig; weights: Weights } {
  const part = { ...config, numHiddenLayers: layers, layerTypes: config.layerTypes.slice(0, layers) };
  const names = Object.keys(parameterShapes(part));
  return { config: part, weights: Object.fromEntries(names.map((name) => [name, weights[name]!])) };
}

/** Ids that differ from place to place. */
const text = (length: number, salt: number): number[] =>
  Array.from({ length }, (_, n) => 3 + ((n * 37 + salt * 101) % 380));

// The model's window is 8 tokens. Completions of 12 and prompts of 14 go beyond it; some are one token long.
const shared: Sequence[] = [
  { prompt: [2, 5, 9, ...text(11, 1)], completions: [text(12, 2), text(1, 3), text(7, 4)] },
  { prompt: [2, 5, 9], completions: [text(3, 5), text(12, 6), text(12, 7)] },
  { prompt: [2, 5, 9, 9], completions: [text(1, 8), text(1, 9), text(2, 10)] },
];
const apart: Sequence[] = [
  { prompt: text(1, 11), completions: [text(9, 12), text(4, 13)] },
  { prompt: text(10, 14), completions: [text(10, 15), text(10, 15)] },
];
const same: Sequence[] = [
  { prompt: text(9, 16), completions: [text(2, 17), text(12, 18)] },
  { prompt: text(9, 16), completions: [text(6, 19), text(3, 20)] },
];

function batchOf(sequences: Sequence[]): Batch {
  const prompts = sequences.map(({ prompt }) => prompt);
  const samples = sequences[0]!.completions.length;
  return listSequences(sequences, sizesOf(prompts, { rows: sequences.length, samples, maxNewTokens: 12 }));
}

/** Logits of the completions' tokens, one forward pass each. */
const slowLogits = (w: Weights, c: ModelConfig, sequences: Sequence[]): tf.Tensor2D =>
  tf.concat(
    sequences.flatMap(({ prompt, completions }) =>
      completions.map((completion) => completionLogitsAlone(w, c, prompt, completion)),
    ),
  );

/** A linear function of all logits of W tokens, each with a coefficient of its own between -1 and 1. */
const mixed = (logits_WV: tf.Tensor2D, coefficients_WV: tf.Tensor): tf.Scalar => logits_WV.mul(coefficients_WV).sum();
const coefficients = (W: number): tf.Tensor =>
  tf
    .range(0, W * config.vocabSize)
    .mul(1.7)
    .sin()
    .reshape([W, config.vocabSize]);

describe("logits and gradients are those of each completion alone", () => {
  test.each<[string, number, string, Sequence[]]>([
    ["0", 4, "three completions each of prompts that share their first tokens", shared],
    // Two layers, one of each kind, compile in half the time of four.
    ["1", 2, "three completions each of prompts that share their first tokens", shared],
    ["0", 4, "prompts that share nothing", apart],
    ["0", 4, "prompts that share everything", same],
  ])("HEDDLE_JIT=%s, %i layers: %s", (HEDDLE_JIT, layers, _, sequences) => {
    const { config, weights } = firstLayers(layers);
    const batch = batchOf(sequences);
    const tokens = sequences.flatMap(({ completions }) => completions.flat()).length;
    expect(batch.targets.length).toBeGreaterThan(tokens); // what fills up the batch is there

    tf.tidy(() => {
      const c_WV = coefficients(tokens);
      const filled_WV = c_WV.pad([
        [0, batch.targets.length - tokens],
        [0, 0],
      ]);
      vi.stubEnv("HEDDLE_JIT", "0");
      const slow = {
        logits_WV: slowLogits(weights, config, sequences),
        grads: gradients(weights, (w) => mixed(slowLogits(w, config, sequences), c_WV)),
      };
      vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
      const fast = jit((w: Weights, tensors: BatchTensors, c: tf.Tensor) => ({
        logits_WV: completionLogits(w, config, tensors),
        grads: gradients(w, (w) => mixed(completionLogits(w, config, tensors), c)),
      }))(weights, batchTensors(batch), filled_WV);

      const counted_WV = fast.logits_WV.slice([0, 0], [tokens, -1]);
      expect(largestDifference(counted_WV, slow.logits_WV)).toBeLessThan(1e-4);
      expect(Object.keys(slow.grads).length).toBe(11 * layers + 2); // the embedding and the last norm too
      expect(largestRelativeDifference(fast.grads, slow.grads)).toBeLessThan(1e-3);
    });
  });
});

test("what fills up a batch is finite, and no tensor is left behind", () => {
  const before = tf.memory().numTensors;
  const batch = batchOf(shared);
  const allFinite = tf.tidy(() => {
    const logits_WV = completionLogits(weights, config, batchTensors(batch));
    return logits_WV.isFinite().all().dataSync()[0];
  });
  expect(allFinite).toBe(1);
  expect(tf.memory().numTensors).toBe(before);
});
