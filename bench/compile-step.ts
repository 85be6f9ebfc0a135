/** One training step with layers in loops: what its first call takes beyond the next ones. compile-step.js [LAYERS] */
import { onCompile, tf } from "tfjs-jit";
import { crossEntropy } from "../distill/losses.js";
import { meanLoss } from "../distill/token-loss.js";
import { listSequences, sizesOf } from "../model/batch.js";
import { computedAs, type ModelConfig } from "../model/config.js";
import type { Weights } from "../model/forward.js";
import { type BatchTensors, batchTensors, completionHidden } from "../model/scoring.js";
import { trainingStep } from "../student/optimiser.js";
import { createTrainable } from "../student/trainable.js";
import { randomIds, randomParameters, studentConfig } from "./models.js";
import { numbersOf } from "./stages.js";
import { median, peakRssMb, print } from "./time.js";

const [layers] = numbersOf(4);
const [V, B, P, N] = [8192, 2, 8, 24];
const plain = studentConfig(V, layers);
const trainable = createTrainable(randomParameters(plain), { gradient_checkpointing: true });
const config = computedAs(plain, { segments: trainable.segments });
const sequences = Array.from({ length: B }, () => ({ prompt: randomIds(P, V), completions: [randomIds(N, V)] }));
const prompts = sequences.map(({ prompt }) => prompt);
const tensors = batchTensors(listSequences(sequences, sizesOf(prompts, { rows: B, samples: 1, maxNewTokens: N })));
const step = trainingStep(
  "step",
  (weights: Weights, of: ModelConfig, { target_W, counted_W, ...lists }: BatchTensors, tokens: tf.Tensor) =>
    meanLoss(completionHidden(weights, of, lists), counted_W, tokens, (logits_CV, chunkOf) =>
      crossEntropy(logits_CV, chunkOf(target_W)),
    ),
);
const adamw = { adam_beta1: 0.9, adam_beta2: 0.999, adam_epsilon: 1e-8 };
const scalars = { step: 1, learningRate: 1e-5, weightDecay: 0, maxGradNorm: 1 };
const optimiser = {
  adamw,
  scalars: Object.fromEntries(Object.entries(scalars).map(([name, value]) => [name, tf.scalar(value)])) as Record<
    keyof typeof scalars,
    tf.Tensor
  >,
};
const args = [config, tensors, tf.scalar(B * N)] as const;
const programs: string[] = [];
onCompile(({ name, seconds }) => programs.push(`${name} ${seconds.toFixed(2)}`));

function takeStep(): { wall: number; processor: number } {
  const begin = performance.now();
  const usage = process.cpuUsage();
  const { loss, gradNorm } = step(trainable, args, optimiser);
  if (!Number.isFinite(loss.dataSync()[0])) throw new Error("the loss is not finite");
  tf.dispose([loss, gradNorm!]);
  const { user, system } = process.cpuUsage(usage);
  return { wall: (performance.now() - begin) / 1000, processor: (user + system) / 1e6 };
}

const first = takeStep();
const later = Array.from({ length: 5 }, takeStep);
const step_s = median(later.map(({ wall }) => wall));
print({
  name: `heddle training step, ${layers} layers in loops`,
  compile_s: first.wall - step_s,
  processor_s: first.processor - median(later.map(({ processor }) => processor)),
  step_s,
  peak_rss_mb: peakRssMb(),
  programs: programs.join(", "),
});
