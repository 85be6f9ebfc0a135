/**
 * Gemma 2 (arXiv 2408.00118) as functions on plain weights, named as in the checkpoint.
 *
 * Shape suffixes: M tokens of a list, in a grid of B rows and T slots; S slots that a row may look at; W tokens of the
 * list whose hidden states are wanted; D model, V vocabulary, N query heads, K key/value heads, H head size.
 * Nothing here reads a tensor, so all of it can be traced by jit.
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

/** Where the tokens of a list stand in a grid, and back; int32. See batch.ts. */
export interface Layout {
  /** Which token; -1 for padding. */
  readonly token_BT: tf.Tensor2D;
  /** row * T + slot. */
  readonly slot_M: tf.Tensor1D;
}

/** A list of tokens; all int32. */
export interface Block {
  readonly ids_M: tf.Tensor1D;
  /** Rotary positions. */
  readonly positions_M: tf.Tensor1D;
  /** A token sees those of its own segment and of segment 0, up to its own position. */
  readonly segments_M: tf.Tensor1D;
  readonly layout: Layout;
}

/** The tokens whose hidden states are wanted: the last layer computes no others. */
export interface Wanted {
  readonly token_W: tf.Tensor1D;
  /** Of the W tokens as queries. */
  readonly layout: Layout;
}

/** What the slots that a row may look at hold, int32. */
export interface Keys {
  readonly positions_BS: tf.Tensor2D;
  /** -1 for padding. */
  readonly segments_BS: tf.Tensor2D;
}

/** What came before a block. */
export interface Memory {
  readonly cache: Cache;
  /** Of all slots, those of the block and of what is yet to come included: their positions hide the latter. */
  readonly keys: Keys;
  /** Slot of the block's first token, an int32 scalar where it is a tensor. */
  readonly start: number | tf.Scalar;
}

/**
 * Hidden states after the final norm, of all M tokens or of the W wanted, and keys and values: the block's own, with a
 * memory its cache with the block written into it. What fills up a list comes out finite and means nothing.
 */
export function forward(
  weights: Weights,
  config: Gemma2Config,
  block: Block,
  memory: Memory | null = null,
  wanted: Wanted | null = null,
): { hidden_MD: tf.Tensor2D; cache: Cache } {
  const keys = memory?.keys ?? ownKeys(block);
  const all = queriesOf(block, keys, config);
  const last = wanted === null ? all : queriesOf(pick(block, wanted), keys, config);
  const cache: LayerCache[] = [];

  let x: tf.Tensor2D = gatherRows<tf.Rank.R2>(weights[EMBEDDING]!, block.ids_M).mul(
    Math.fround(Math.sqrt(config.hiddenSize)),
  );
  config.layerTypes.forEach((type, layer) => {
    const weight = (name: string) => weights[`model.layers.${layer}.${name}.weight`]!;
    const norm = (name: string, y: tf.Tensor2D) => rmsNorm(y, weight(name) as tf.Tensor1D, config.rmsNormEps);
    const project = (name: string, y: tf.Tensor2D): tf.Tensor3D =>
      linear(y, weight(`self_attn.${name}`)).reshape([y.shape[0], -1, config.headDim]);

    let h = norm("input_layernorm", x);
    const kv = remember(memory, layer, {
      k_BKSH: spread(all.rotate(project("k_proj", h)), block.layout),
      v_BKSH: spread(project("v_proj", h), block.layout),
    });
    cache.push(kv);
    const isLast = wanted !== null && layer === config.layerTypes.length - 1;
    if (isLast) [x, h] = [gatherRows<tf.Rank.R2>(x, wanted.token_W), gatherRows<tf.Rank.R2>(h, wanted.token_W)];
    const { rotate, maskOf, layout } = isLast ? last : all;

    const q_BNTH = spread(rotate(project("q_proj", h)), layout);
    const attended = collect(attention(q_BNTH, kv, maskOf(type), config), layout);
    x = x.add(norm("post_attention_layernorm", linear(attended, weight("self_attn.o_proj"))));

    const g = norm("pre_feedforward_layernorm", x);
    const gated = gelu(linear(g, weight("mlp.gate_proj"))).mul<tf.Tensor2D>(linear(g, weight("mlp.up_proj")));
    x = x.add(norm("post_feedforward_layernorm", linear(gated, weight("mlp.down_proj"))));
  });
  return { hidden_MD: rmsNorm(x, weights["model.norm.weight"] as tf.Tensor1D, config.rmsNormEps), cache };
}

/** Soft-capped logits [M, V] of hidden states. The head is the embedding matrix. */
export const logits = (weights: Weights, config: Gemma2Config, hidden_MD: tf.Tensor2D): tf.Tensor2D =>
  softCap(linear(hidden_MD, weights[EMBEDDING]!), config.finalLogitSoftcapping);

/** A cache with room for more slots, which are empty. */
export const extendCache = (cache: Cache, slots: number): Cache => {
  const extend = (x_BKSH: tf.Tensor4D): tf.Tensor4D => {
    const [B, K, , H] = x_BKSH.shape;
    return tf.concat([x_BKSH, tf.fill([B, K, slots, H], 0)], 2) as tf.Tensor4D;
  };
  return cache.map(({ k_BKSH, v_BKSH }) => ({ k_BKSH: extend(k_BKSH), v_BKSH: extend(v_BKSH) }));
};

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

/** What a block looks at where nothing came before it. */
function ownKeys({ positions_M, segments_M, layout: { token_BT } }: Block): Keys {
  const isToken_BT = token_BT.greaterEqual(tf.scalar(0, "int32"));
  const segments_BT = tf.where(isToken_BT, at(segments_M, token_BT), tf.fill(token_BT.shape, -1, "int32"));
  return { positions_BS: at(positions_M, token_BT), segments_BS: segments_BT };
}

/** Tokens that look. */
type Looking = Pick<Block, "positions_M" | "segments_M" | "layout">;

const pick = ({ positions_M, segments_M }: Block, { token_W, layout }: Wanted): Looking => ({
  positions_M: at(positions_M, token_W),
  segments_M: at(segments_M, token_W),
  layout,
});

/** What the layers need to know of tokens that look. */
function queriesOf({ positions_M, segments_M, layout }: Looking, keys: Keys, config: Gemma2Config) {
  const { token_BT } = layout;
  const queries = { positions_BT: at(positions_M, token_BT), segments_BT: at(segments_M, token_BT) };
  return { layout, rotate: rotary(positions_M, config), maskOf: masks(queries, keys, config) };
}

/** values[index], of any shape; an index of -1 gives any value. */
const at = <T extends tf.Tensor>(values: tf.Tensor1D, index: T): T =>
  gatherRows(values.reshape([-1, 1]), index.relu()).reshape(index.shape) as T;

/** The keys and values that a block looks at: its own, and with a memory those of the slots before it. */
function remember(memory: Memory | null, layer: number, block: LayerCache): LayerCache {
  if (memory === null) return block;
  const { k_BKSH, v_BKSH } = memory.cache[layer]!;
  return {
    k_BKSH: dynamicUpdateSlice(k_BKSH, block.k_BKSH, [0, 0, memory.start, 0]) as tf.Tensor4D,
    v_BKSH: dynamicUpdateSlice(v_BKSH, block.v_BKSH, [0, 0, memory.start, 0]) as tf.Tensor4D,
  };
}

/** Heads of a list of tokens into the grid, where padding holds any token's. */
function spread(x_MNH: tf.Tensor3D, { token_BT }: Layout): tf.Tensor4D {
  const [M, N, H] = x_MNH.shape;
  const [B, T] = token_BT.shape;
  const first_B1T = token_BT.relu().mul(tf.scalar(N, "int32")).reshape([B, 1, T]);
  const row_BNT = first_B1T.add(tf.range(0, N, 1, "int32").reshape([1, N, 1]));
  return gatherRows(x_MNH.reshape([M * N, H]), row_BNT);
}

/** The inverse of `spread`, with the heads of a token side by side: [M, N * H]. */
function collect(x_BNTH: tf.Tensor4D, { slot_M }: Layout): tf.Tensor2D {
  const [B, N, T, H] = x_BNTH.shape;
  const [M, slots] = [slot_M.shape[0], tf.scalar(T, "int32")];
  const row_M = slot_M.floorDiv(slots);
  const first_M1 = row_M
    .mul(tf.scalar((N - 1) * T, "int32"))
    .add(slot_M)
    .reshape([M, 1]);
  const row_MN = first_M1.add(tf.range(0, N * T, T, "int32").reshape([1, N]));
  return gatherRows(x_BNTH.reshape([B * N * T, H]), row_MN).reshape([M, N * H]);
}

/**
 * Grouped-query attention, [B, N, T, H].
 * The query heads that share a key head are stacked along T, so keys and values are never repeated.
 */
function attention(q_BNTH: tf.Tensor4D, kv: LayerCache, mask_B1TS: tf.Tensor4D, config: Gemma2Config): tf.Tensor4D {
  const [B, N, T, H] = q_BNTH.shape;
  const [, K, S] = kv.k_BKSH.shape;
  const stacked = q_BNTH.mul(config.queryPreAttnScalar ** -0.5).reshape([B, K, (N / K) * T, H]);
  const scores = softCap(tf.matMul(stacked, kv.k_BKSH, false, true), config.attnLogitSoftcapping);
  const probabilities = tf.softmax(scores.reshape([B, N, T, S]).add(mask_B1TS));
  return tf.matMul(probabilities.reshape([B, K, (N / K) * T, S]), kv.v_BKSH).reshape([B, N, T, H]);
}

/** What is added to a score where a query must not look. Finite, so that a row of padding, which sees nothing, stays finite. */
const HIDDEN = -1e9;

/**
 * Masks [B, 1, T, S] to add to scores. A token sees the tokens of segment 0 and of its own segment at positions up to
 * its own, in sliding layers only those less than a window before it.
 */
function masks(
  { positions_BT, segments_BT }: { readonly positions_BT: tf.Tensor2D; readonly segments_BT: tf.Tensor2D },
  { positions_BS, segments_BS }: Keys,
  config: Gemma2Config,
): (type: Gemma2Config["layerTypes"][number]) => tf.Tensor4D {
  const [B, T] = positions_BT.shape;
  const S = positions_BS.shape[1];
  const segments_B1S = segments_BS.reshape([B, 1, S]);
  const isOwn_BTS = segments_B1S
    .equal(segments_BT.reshape([B, T, 1]))
    .logicalOr(segments_B1S.equal(tf.scalar(0, "int32")));
  const distance_BTS = positions_BT.reshape([B, T, 1]).sub(positions_BS.reshape([B, 1, S]));
  const mask = (visible_BTS: tf.Tensor): tf.Tensor4D =>
    visible_BTS.toFloat().sub(1).mul(-HIDDEN).reshape([B, 1, T, S]) as tf.Tensor4D;

  const past_BTS = isOwn_BTS.logicalAnd(distance_BTS.greaterEqual(tf.scalar(0, "int32")));
  const full = mask(past_BTS);
  const slides = config.slidingWindow < S && config.layerTypes.includes("sliding_attention");
  const window = tf.scalar(config.slidingWindow, "int32");
  const sliding = slides ? mask(past_BTS.logicalAnd(distance_BTS.less(window))) : full;
  return (type) => (type === "sliding_attention" ? sliding : full);
}

/**
 * Rotary position embedding: turns each pair (x_i, x_{i + H/2}) by position * theta^(-2i/H) (arXiv 2104.09864).
 * Frequencies are rounded to float32 and multiplied in float32, as in transformers.
 */
function rotary(positions_M: tf.Tensor1D, config: Gemma2Config): (x_MNH: tf.Tensor3D) => tf.Tensor3D {
  const half = config.headDim / 2;
  const frequencies = tf.tensor1d(Array.from({ length: half }, (_, i) => config.ropeTheta ** (-i / half)));
  const angles_M1H = positions_M.toFloat().reshape([-1, 1, 1]).mul(frequencies);
  const cos_M1H = tf.concat([angles_M1H.cos(), angles_M1H.cos()], -1);
  const sin_M1H = tf.concat([angles_M1H.sin().neg(), angles_M1H.sin()], -1);
  return (x_MNH) => {
    const [low, high] = tf.split(x_MNH, 2, -1) as [tf.Tensor3D, tf.Tensor3D];
    return x_MNH.mul(cos_M1H).add(tf.concat([high, low], -1).mul(sin_M1H));
  };
}

/** x / rms(x) * (1 + w) over the last axis. */
const rmsNorm = (x: tf.Tensor2D, w: tf.Tensor1D, eps: number): tf.Tensor2D =>
  x.mul(x.square().mean(-1, true).add(eps).rsqrt()).mul(w.add(1));

/** x @ wT for a checkpoint matrix [out, in]. */
const linear = (x: tf.Tensor2D, w: tf.Tensor): tf.Tensor2D => tf.matMul(x, w as tf.Tensor2D, false, true);

/** Squashes x into (-cap, cap): arXiv 2408.00118, section 2. */
const softCap = <T extends tf.Tensor>(x: T, cap: number | null): T => (cap === null ? x : x.div(cap).tanh().mul(cap));

/** GELU in its tanh approximation, gelu_pytorch_tanh: arXiv 1606.08415. */
const gelu = (x: tf.Tensor2D): tf.Tensor2D =>
  x.mul(0.5).mul(
    x
      .add(x.mul(x).mul(x).mul(0.044715))
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1),
  );
