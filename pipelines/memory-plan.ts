/**
 * How much memory a stage of training will take, by arithmetic on shapes. Imports no TensorFlow.
 *
 * Weights, moments, gradients and caches are counted. What XLA keeps within a step is not told by it: those numbers per
 * token were fitted to measured steps (bench/plan.ts compares them with what runs take).
 */

import type { Device } from "tfjs-jit/setup";
import { paddedLength, type Sizes } from "../model/batch.js";
import { MAX_HEAD_PART, MAX_LOGITS, MAX_SCORES } from "../model/compute.js";
import type { ModelConfig } from "../model/config.js";
import { EMBEDDING, layerOf, parameterShapes } from "../model/shapes.js";

export type PlannedModel = {
  readonly config: ModelConfig;
  /** Bytes of an element of each tensor as it is kept. */
  readonly bytesOf: (tensor: string) => number;
};

export type PlannedStage = {
  readonly phase: "sft" | "distill" | "rl";
  readonly student: PlannedModel & {
    readonly learns: (tensor: string) => boolean;
    /** Shapes of an adapter's matrices, which learn; {} for none. */
    readonly adapter: Readonly<Record<string, readonly number[]>>;
  };
  /** A model folder that is the teacher; null for none in this process. */
  readonly teacher: (PlannedModel & { readonly isShared: boolean }) | null;
  /** RL's reward model; null for none. */
  readonly reward: PlannedModel | null;
  /** Of a whole step's batch, and of one of its parts. */
  readonly sizes: Sizes;
  readonly part: Sizes;
  readonly isInLoops: boolean;
  readonly device: Device;
  /** Whether products in float32 read bfloat16 weights as they are (readsBfloat16On of tfjs-jit/setup). */
  readonly readsBfloat16: boolean;
};

/** Bytes by what they are for; together they are there at one time. */
export type MemoryPlan = {
  readonly runtime: number;
  readonly weights: number;
  readonly teacher: number;
  /** The reward model. */
  readonly reward: number;
  readonly optimiser: number;
  /** RL's moving average. */
  readonly anchor: number;
  readonly gradients: number;
  readonly activations: number;
  readonly loss: number;
  /** Keys and values while sampling, and float32 of layers that need it: that memory is the training step's at other times. */
  readonly cache: number;
};

const FLOAT = 4;
/** Node, TensorFlow's libraries and what compiling a training step leaves, measured. */
const RUNTIME = 0.66e9;
/** What compiling the programs that sample and score leaves. */
const MORE_PROGRAMS = 0.17e9;

const elements = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function bytesOfWeights({ config, bytesOf }: PlannedModel): number {
  return Object.entries(parameterShapes(config)).reduce(
    (sum, [name, shape]) => sum + bytesOf(name) * elements(shape),
    0,
  );
}

/** The largest micro-batch: M tokens of a list, W of them predict, rows of S slots. */
function largestBatch({ rows, samples, maxNewTokens, longestPrompt, promptTokens }: Sizes) {
  const W = rows * samples * maxNewTokens;
  const longest = Math.max(longestPrompt, samples) + samples * (maxNewTokens - 1);
  return { M: promptTokens + W - rows * samples, W, S: paddedLength(longest, longest) };
}

export function planMemory(stage: PlannedStage): MemoryPlan {
  const { student, teacher, reward, sizes, part, isInLoops, phase, device, readsBfloat16 } = stage;
  const { config } = student;
  const adapter = Object.entries(student.adapter);
  const learning = [...Object.entries(parameterShapes(config)).filter(([name]) => student.learns(name)), ...adapter];
  const learns = FLOAT * learning.reduce((sum, [, shape]) => sum + elements(shape), 0);
  const parts = sizes.rows / part.rows;
  const { M, W, S } = largestBatch(part);
  const names = learning.map(([name]) => name);
  // Where there would be too many scores, attention keeps none of them, and has some at a time (model/attention.ts).
  const isInBlocks = M * config.numAttentionHeads * S > MAX_SCORES;
  const ofLayer = FLOAT * floatsPerToken(config, isInBlocks ? 0 : S);
  // The last layer computes what is looked at alone; a loop computes all of it, and each layer once more.
  const layers = layersWithGradient(config, names);
  const activations = isInLoops
    ? 2 * (M * ofLayer + floatValues(student)) + FLOAT * M * config.hiddenSize * config.numHiddenLayers
    : Math.max(M, W + M * (layers - 1)) * ofLayer;
  return {
    runtime: phase === "sft" ? RUNTIME : RUNTIME + MORE_PROGRAMS,
    weights:
      bytesOfWeights(student) +
      loadingBytes(student) +
      FLOAT * adapter.reduce((sum, [, shape]) => sum + elements(shape), 0),
    // The base of an adapter that is its own teacher is there already.
    teacher: teacher === null || teacher.isShared ? 0 : bytesOfWeights(teacher),
    reward: reward === null ? 0 : bytesOfWeights(reward),
    optimiser: 2 * learns + (parts > 1 ? learns : 0),
    anchor: phase === "rl" ? learns : 0,
    // Those of a loop's layers are one tensor, beside which its sum is made.
    gradients: isInLoops ? 2 * learns : learns,
    activations: activations + (isInBlocks ? 3 * FLOAT * MAX_SCORES : 0),
    loss:
      lossBytes(config, W, teacher !== null, device) +
      floatHead(student, stage) +
      (teacher === null ? 0 : floatHead(teacher, stage)),
    cache:
      phase === "sft"
        ? 0
        : cacheBytes(config, sizes) + (readsBfloat16 ? 0 : floatLayers(student)) + floatValues(student),
  };
}

/** All of it at once, but for what takes turns: a training step and sampling. */
export function totalBytes(plan: MemoryPlan): number {
  const { runtime, weights, teacher, reward, optimiser, anchor, gradients, activations, loss, cache } = plan;
  return runtime + weights + teacher + reward + optimiser + anchor + Math.max(gradients + activations + loss, cache);
}

/** Floats that a layer keeps of a token for the gradient, and works with meanwhile. */
function floatsPerToken(config: ModelConfig, S: number): number {
  const { hiddenSize: D, intermediateSize: F, numAttentionHeads: N, headDim: H } = config;
  return 8 * D + 8 * N * H + 8 * F + 2.5 * N * S;
}

/** Layers that a gradient goes through: those from the first that learns on. */
function layersWithGradient({ numHiddenLayers }: ModelConfig, names: readonly string[]): number {
  if (names.includes(EMBEDDING)) return numHiddenLayers;
  const layers = names.flatMap((name) => layerOf(name)?.layer ?? []);
  return layers.length === 0 ? 0 : numHiddenLayers - Math.min(...layers);
}

/** The logits of a chunk of tokens, a handful of times (distill/token-loss.ts). */
function lossBytes({ vocabSize: V }: ModelConfig, W: number, hasTeacher: boolean, device: Device): number {
  const chunk = Math.min(W * V, Math.ceil(MAX_LOGITS[device] / V) * V);
  return FLOAT * chunk * (hasTeacher ? 6 : 4);
}

/**
 * A head that is kept in bfloat16 or int8 is multiplied in float32, a part of it at a time, unless it is read as it is; on a
 * GPU one of a model that computes in bfloat16 is multiplied as such, of which a float32 one has a copy (model/head.ts).
 */
function floatHead(
  { config, bytesOf }: PlannedModel,
  { device, readsBfloat16 }: Pick<PlannedStage, "device" | "readsBfloat16">,
): number {
  const [size, bytes] = [config.vocabSize * config.hiddenSize, bytesOf(EMBEDDING)];
  if (device === "gpu" && config.compute.dtype === "bfloat16" && bytes !== 1) return bytes === 4 ? size * 2 : 0;
  if (bytes === 2 && readsBfloat16) return 0;
  return bytes < 4 ? FLOAT * Math.min(MAX_HEAD_PART[device], size) : 0;
}

/** Where bfloat16 is not read as it is, sampling makes float32 of all layers at once. */
const floatLayers = ({ config, bytesOf }: PlannedModel): number =>
  Object.entries(parameterShapes(config)).reduce(
    (sum, [name, shape]) => sum + (name !== EMBEDDING && bytesOf(name) === 2 ? FLOAT * elements(shape) : 0),
    0,
  );

const isQuantised = ({ bytesOf }: PlannedModel, name: string): boolean => bytesOf(name) < 2;

/** The values of a layer's quantised matrices, which are made where they are multiplied (model/quantised.ts). */
function floatValues(model: PlannedModel): number {
  const layers = new Map<number, number>();
  for (const [name, shape] of Object.entries(parameterShapes(model.config))) {
    const own = layerOf(name);
    if (own === null || !isQuantised(model, name)) continue;
    layers.set(own.layer, (layers.get(own.layer) ?? 0) + FLOAT * elements(shape));
  }
  return Math.max(0, ...layers.values());
}

/** While it is loaded the largest quantised matrix, the embedding, is there twice; what is freed then the process keeps. */
const loadingBytes = (model: PlannedModel): number =>
  isQuantised(model, EMBEDDING) ? model.bytesOf(EMBEDDING) * model.config.vocabSize * model.config.hiddenSize : 0;

function cacheBytes(config: ModelConfig, { rows, samples, maxNewTokens, longestPrompt }: Sizes): number {
  const { numKeyValueHeads: K, headDim: H, layerTypes, slidingWindow } = config;
  return layerTypes.reduce((sum, type) => {
    const most = type === "sliding_attention" ? slidingWindow : Number.POSITIVE_INFINITY;
    const slots = rows * Math.min(longestPrompt, most) + rows * samples * Math.min(maxNewTokens, most);
    return sum + 2 * FLOAT * K * H * slots;
  }, 0);
}
