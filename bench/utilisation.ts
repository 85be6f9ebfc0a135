/**
 * On a GPU: model FLOP utilisation of a training step, and tokens a second of sampling at batch 64, of four layers of
 * gemma-2-2b's shape in bfloat16. utilisation.js PEAK_TFLOPS
 */
import { tf } from "tfjs-jit";
import { crossEntropy } from "../distill/losses.js";
import { meanLoss } from "../distill/token-loss.js";
import { listPrompts, listSequences, sizesOf } from "../model/batch.js";
import { computedAs, type ModelConfig, parseModelConfig } from "../model/config.js";
import type { Weights } from "../model/forward.js";
import { type BatchTensors, batchTensors, completionHidden } from "../model/scoring.js";
import { parameterShapes } from "../model/shapes.js";
import { trainingStep } from "../student/optimiser.js";
import { sampleCompletions } from "../student/sample.js";
import { createTrainable } from "../student/trainable.js";
import { publishedConfig } from "./large-model.js";
import { randomIds, randomParameters } from "./models.js";
import { numbersOf } from "./stages.js";
import { print, secondsOf } from "./time.js";

const [peakTflops] = numbersOf(989);
const config = computedAs(parseModelConfig("the benchmark's config", publishedConfig("gemma-2-2b", 4)), {
  dtype: "bfloat16",
});
// What learns is float32.
const parameters = randomParameters(computedAs(config, { dtype: "float32" }));
const [B, P, N] = [8, 64, 448];
const promptsOf = (rows: number) => Array.from({ length: rows }, () => randomIds(P, config.vocabSize));

const trainable = createTrainable(parameters);
const shape = { rows: B, samples: 1, maxNewTokens: N };
const sequences = promptsOf(B).map((prompt) => ({ prompt, completions: [randomIds(N, config.vocabSize)] }));
const batch = listSequences(
  sequences,
  sizesOf(
    sequences.map(({ prompt }) => prompt),
    shape,
  ),
);
const tensors = batchTensors(batch);
const step = trainingStep(
  "utilisation",
  (weights: Weights, of: ModelConfig, { target_W, counted_W, ...lists }: BatchTensors, tokens: tf.Tensor) =>
    meanLoss(completionHidden(weights, of, lists), counted_W, tokens, (logits_CV, chunkOf) =>
      crossEntropy(logits_CV, chunkOf(target_W)),
    ),
);
const adamw = { adam_beta1: 0.9, adam_beta2: 0.999, adam_epsilon: 1e-8 };
const scalar = (value: number) => tf.scalar(value);
const scalars = { step: scalar(1), learningRate: scalar(1e-5), weightDecay: scalar(0), maxGradNorm: scalar(1) };
const train = secondsOf(() => {
  const { loss, gradNorm } = step(trainable, [config, tensors, scalar(B * N)], { adamw, scalars });
  loss.dataSync();
  tf.dispose([loss, gradNorm!]);
});
// 6 FLOP a weight of a matrix and token (arXiv 2001.08361, section 2.1): 2 forward, 4 backward; the embedding is the head.
const weights = Object.values(parameterShapes(config)).reduce((sum, [a, b]) => sum + (b === undefined ? 0 : a! * b), 0);
const flops = 6 * weights * tensors.block.ids_M.shape[0];
print({
  name: "heddle training step, 4 layers of gemma-2-2b",
  median_s: train.median_s,
  tflops: flops / train.median_s / 1e12,
  mfu: flops / train.median_s / 1e12 / peakTflops,
});

const prompts = promptsOf(64);
const list = listPrompts(prompts, sizesOf(prompts, { rows: 64, samples: 1, maxNewTokens: 256 }));
const choice = {
  samples: 1,
  maxNewTokens: 256,
  temperature: 1,
  topK: 0,
  topP: 1,
  logprobTemperature: 1,
  stopIds: [],
  seed: 0,
};
const sample = secondsOf(() => sampleCompletions(parameters, config, list, choice));
print({
  name: "heddle sampling, batch 64",
  median_s: sample.median_s,
  tokens_per_second: (64 * 256) / sample.median_s,
});
