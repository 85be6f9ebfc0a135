/**
 * Gemma 2 (arXiv 2408.00118) as functions on plain weights, named as in the checkpoint.
 *
 * Shape suffixes: B rows, T tokens of the block, S slots that it may look at, D model, V vocabulary,
 * N query heads, K key/value heads, H head size. Nothing here reads a tensor, so all of it can be traced by jit.
 */
import { dynamicUpdateSlice, gatherRows, tf } from "tfjs-jit";
import type { Gemma2Config } from "./config.js";

/** Tensors by their names in the checkpoint, such as "model.layers.0.self_attn.q_proj.weight". Matrices are [out, in]. */
export type Weights = Readonly<Record<string, tf.Tensor>>;

/** Name of the embedding matrix [V, D], which is the head as well. */
export const EMBEDDING = "model.embed_tokens.weight";

/** Keys and values of the slots that are filled so far; one entry per layer. */
export type Cache = readonly LayerCache[];
export interface LayerCache {
  readonly k_BKSH: tf.Tensor4D;
  readonly v_BKSH: tf.Tensor4D;
}

/** T tokens of each of B rows. They lie in the slots start ... start + T - 1. */
export interface Block {
  /** int32. */
  readonly ids_BT: tf.Tensor2D;
  /** int32 rotary positions. */
  readonly positions_BT: tf.Tensor2D;
  /** Slot of the block's first token, an int32 scalar where it is a tensor. 0 without a cache. */
  readonly start: number | tf.Scalar;
  /** 1 where a slot may be looked at, 0 for padding. S is T without a cache, its size with one. */
  readonly attention_BS: tf.Tensor2D;
}

/**
 * Hidden states after the final norm, and the cache with the block written into it (null in, null out).
 * Rows of padding come out finite and mean nothing.
 */
export function forward(
  weights: Weights,
  config: Gemma2Config,
  block: Block,
  cache: Cache | null,
): { hidden_BTD: tf.Tensor3D; cache: Cache | null } {
  const [B, T] = block.ids_BT.shape;
  const rotate = rotary(block.positions_BT, config);
  const maskOf = masks(block, config);
  const written: LayerCache[] = [];

  let x: tf.Tensor2D = gatherRows(weights[EMBEDDING] as tf.Tensor2D, block.ids_BT)
    .mul(Math.fround(Math.sqrt(config.hiddenSize)))
    .reshape([B * T, config.hiddenSize]);
  config.layerTypes.forEach((type, layer) => {
    const weight = (name: string) => weights[`model.layers.${layer}.${name}.weight`]!;
    const norm = (name: string, y: tf.Tensor2D) => rmsNorm(y, weight(name) as tf.Tensor1D, config.rmsNormEps);

    const project = (y: tf.Tensor2D, name: string, heads: number): tf.Tensor4D =>
      linear(y, weight(`self_attn.${name}`))
        .reshape([B, T, heads, config.headDim])
        .transpose([0, 2, 1, 3]);
    const h = norm("input_layernorm", x);
    const q_BNTH = rotate(project(h, "q_proj", config.numAttentionHeads));
    const kv = remember(cache?.[layer], block.start, {
      k_BKSH: rotate(project(h, "k_proj", config.numKeyValueHeads)),
      v_BKSH: project(h, "v_proj", config.numKeyValueHeads),
    });
    written.push(kv);
    const attended = linear(attention(q_BNTH, kv, maskOf[type], config), weight("self_attn.o_proj"));
    x = x.add(norm("post_attention_layernorm", attended));

    const g = norm("pre_feedforward_layernorm", x);
    const gated = gelu(linear(g, weight("mlp.gate_proj"))).mul<tf.Tensor2D>(linear(g, weight("mlp.up_proj")));
    x = x.add(norm("post_feedforward_layernorm", linear(gated, weight("mlp.down_proj"))));
  });

  const hidden_BTD = rmsNorm(x, weights["model.norm.weight"] as tf.Tensor1D, config.rmsNormEps);
  return { hidden_BTD: hidden_BTD.reshape([B, T, config.hiddenSize]), cache: cache && written };
}

/** Soft-capped logits [..., V] of hidden states [..., D]. The head is the embedding matrix. */
export function logits(weights: Weights, config: Gemma2Config, hidden: tf.Tensor): tf.Tensor {
  const flat = linear(hidden.reshape([-1, config.hiddenSize]), weights[EMBEDDING]!);
  return softCap(flat, config.finalLogitSoftcapping).reshape([...hidden.shape.slice(0, -1), config.vocabSize]);
}

/** A cache of S empty slots for B rows. */
export function emptyCache(config: Gemma2Config, B: number, S: number): Cache {
  const empty = (): tf.Tensor4D => tf.fill([B, config.numKeyValueHeads, S, config.headDim], 0);
  return config.layerTypes.map(() => ({ k_BKSH: empty(), v_BKSH: empty() }));
}

/** int32 rotary positions of left-padded rows: the first attended token has 0, and so has the padding before it. */
export function positions(attention_BT: tf.Tensor2D): tf.Tensor2D {
  return tf.cumsum(attention_BT.toFloat(), 1).sub(1).relu().cast<tf.Tensor2D>("int32");
}

/** The shape of every tensor of a checkpoint, by name. */
export function parameterShapes(config: Gemma2Config): Record<string, number[]> {
  const { hiddenSize: D, intermediateSize: F, headDim: H, numAttentionHeads: N, numKeyValueHeads: K } = config;
  const shapes: Record<string, number[]> = { [EMBEDDING]: [config.vocabSize, D] };
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const of = (name: string, ...shape: number[]) => {
      shapes[`model.layers.${layer}.${name}.weight`] = shape;
    };
    of("input_layernorm", D);
    of("mlp.down_proj", D, F);
    of("mlp.gate_proj", F, D);
    of("mlp.up_proj", F, D);
    of("post_attention_layernorm", D);
    of("post_feedforward_layernorm", D);
    of("pre_feedforward_layernorm", D);
    of("self_attn.k_proj", K * H, D);
    of("self_attn.o_proj", D, N * H);
    of("self_attn.q_proj", N * H, D);
    of("self_attn.v_proj", K * H, D);
  }
  return { ...shapes, "model.norm.weight": [D] };
}

/** The keys and values that a block looks at: its own, and with a cache those of the slots before it. */
function remember(cache: LayerCache | undefined, start: number | tf.Scalar, block: LayerCache): LayerCache {
  if (!cache) return block;
  return {
    k_BKSH: dynamicUpdateSlice(cache.k_BKSH, block.k_BKSH, [0, 0, start, 0]) as tf.Tensor4D,
    v_BKSH: dynamicUpdateSlice(cache.v_BKSH, block.v_BKSH, [0, 0, start, 0]) as tf.Tensor4D,
  };
}

/**
 * Grouped-query attention, [B * T, N * H].
 * The query heads that share a key head are stacked along T, so keys and values are never repeated.
 */
function attention(q_BNTH: tf.Tensor4D, kv: LayerCache, mask_B1TS: tf.Tensor4D, config: Gemma2Config): tf.Tensor2D {
  const [B, N, T, H] = q_BNTH.shape;
  const [, K, S] = kv.k_BKSH.shape;
  const stacked = q_BNTH.mul(config.queryPreAttnScalar ** -0.5).reshape([B, K, (N / K) * T, H]);
  const scores = softCap(tf.matMul(stacked, kv.k_BKSH, false, true), config.attnLogitSoftcapping);
  const probabilities = tf.softmax(scores.reshape([B, N, T, S]).add(mask_B1TS));
  const out = tf.matMul(probabilities.reshape([B, K, (N / K) * T, S]), kv.v_BKSH);
  return out
    .reshape([B, N, T, H])
    .transpose([0, 2, 1, 3])
    .reshape([B * T, N * H]);
}

/** What is added to a score where a query must not look. Finite, so that a row of padding, which sees nothing, stays finite. */
const HIDDEN = -1e9;

/** Masks [B, 1, T, S] to add to scores. Slot i sees slot j <= i that holds no padding; in sliding layers also i - j < window. */
function masks(block: Block, config: Gemma2Config): Record<Gemma2Config["layerTypes"][number], tf.Tensor4D> {
  const T = block.ids_BT.shape[1];
  const [B, S] = block.attention_BS.shape;
  const start = typeof block.start === "number" ? block.start : block.start.toFloat();
  const attended_B1TS = block.attention_BS.toFloat().reshape([B, 1, 1, S]);
  const distance_TS = tf.range(0, T).add(start).reshape([T, 1]).sub(tf.range(0, S));
  const mask = (visible_TS: tf.Tensor): tf.Tensor4D => attended_B1TS.mul(visible_TS.toFloat()).sub(1).mul(-HIDDEN);

  const past_TS = distance_TS.greaterEqual(0);
  const full = mask(past_TS);
  const slides = config.slidingWindow < S && config.layerTypes.includes("sliding_attention");
  const sliding = slides ? mask(past_TS.logicalAnd(distance_TS.less(config.slidingWindow))) : full;
  return { full_attention: full, sliding_attention: sliding };
}

/**
 * Rotary position embedding: turns each pair (x_i, x_{i + H/2}) by position * theta^(-2i/H) (arXiv 2104.09864).
 * Frequencies are rounded to float32 and multiplied in float32, as in transformers.
 */
function rotary(positions_BT: tf.Tensor2D, config: Gemma2Config): (x_BNTH: tf.Tensor4D) => tf.Tensor4D {
  const [B, T] = positions_BT.shape;
  const half = config.headDim / 2;
  const frequencies = tf.tensor1d(Array.from({ length: half }, (_, i) => config.ropeTheta ** (-i / half)));
  const angles_B1TH = positions_BT.toFloat().reshape([B, 1, T, 1]).mul(frequencies);
  const cos_B1TH = tf.concat([angles_B1TH.cos(), angles_B1TH.cos()], -1);
  const sin_B1TH = tf.concat([angles_B1TH.sin().neg(), angles_B1TH.sin()], -1);
  return (x_BNTH) => {
    const [low, high] = tf.split(x_BNTH, 2, -1) as [tf.Tensor4D, tf.Tensor4D];
    return x_BNTH.mul(cos_B1TH).add(tf.concat([high, low], -1).mul(sin_B1TH));
  };
}

/** x / rms(x) * (1 + w) over the last axis. */
const rmsNorm = (x: tf.Tensor2D, w: tf.Tensor1D, eps: number): tf.Tensor2D =>
  x.mul(x.square().mean(-1, true).add(eps).rsqrt()).mul(w.add(1));

/** x @ wT for a checkpoint matrix [out, in]. */
const linear = (x: tf.Tensor2D, w: tf.Tensor): tf.Tensor2D => tf.matMul(x, w as tf.Tensor2D, false, true);

/** Squashes x into (-cap, cap): arXiv 2408.00118, section 2. */
const softCap = (x: tf.Tensor, cap: number | null): tf.Tensor => (cap === null ? x : x.div(cap).tanh().mul(cap));

/** GELU in its tanh approximation, gelu_pytorch_tanh: arXiv 1606.08415. */
const gelu = (x: tf.Tensor2D): tf.Tensor2D =>
  x.mul(0.5).mul(
    x
      .add(x.mul(x).mul(x).mul(0.044715))
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1),
  );
