/**
 * Gemma 2 (arXiv 2408.00118) as functions on plain weights, named as in the checkpoint.
 *
 * Shape suffixes: M tokens of a list, in a grid of B rows and T slots; S slots that a row may look at; W tokens of the
 * list whose hidden states are wanted; D model, V vocabulary, N query heads, K key/value heads, H head size.
 * Nothing here reads a tensor, so all of it can be traced by jit.
 */
import { dynamicUpdateSlice, eachOf, gatherRows, scan, tf } from "tfjs-jit";
import {
  attention,
  type Block,
  type ByType,
  everyType,
  type Grid,
  type Keys,
  type LayerCache,
  type Layout,
  type Looking,
  ownKeys,
  pick,
  type Queries,
  queriesOf,
  type Seen,
  seenIn,
  softCap,
  spread,
  type Wanted,
} from "./attention.js";
import type { Gemma2Config } from "./config.js";

/** Tensors by their names in the checkpoint, such as "model.layers.0.self_attn.q_proj.weight". Matrices are [out, in]. */
export type Weights = Readonly<Record<string, tf.Tensor>>;

/** Name of the embedding matrix [V, D], which is the head as well. */
export const EMBEDDING = "model.embed_tokens.weight";

/** Keys and values of the slots that are filled so far; one entry per layer. */
export type Cache = readonly LayerCache[];

/** What came before a block. */
export interface Memory {
  /** The rows that the block's tokens stand in, by its own layout. It is written into them. */
  readonly own: { readonly cache: Cache; readonly slots: ByType<Slots> };
  /** Rows that the block's tokens see as well, such as prompts that several of them share. They stay as they are. */
  readonly prompts: (Grid & { readonly cache: Cache }) | null;
}

/** The slots of rows that a block is written into, in layers of one type. */
export interface Slots {
  /** Of all slots, those of the block and of what is yet to come included: their positions or segments hide the latter. */
  readonly keys: Keys;
  /** Slot of the block's first token, an int32 scalar where it is a tensor. */
  readonly start: number | tf.Scalar;
}

/**
 * Hidden states after the final norm, of all M tokens or of the W wanted, and keys and values: the block's own, with a
 * memory its own rows with the block written into them. What fills up a list comes out finite and means nothing.
 */
export function forward(
  weights: Weights,
  config: Gemma2Config,
  block: Block,
  memory: Memory | null = null,
  wanted: Wanted | null = null,
): { hidden_MD: tf.Tensor2D; cache: Cache } {
  const prompts = memory?.prompts ? [memory.prompts] : [];
  const keys = memory === null ? everyType(ownKeys(block)) : keysOf(memory.own.slots);
  const queries = (tokens: Looking) => queriesOf(tokens, [{ layout: tokens.layout, keys }, ...prompts], config);
  const all = queries(block);
  const last = wanted === null ? all : { ...queries(pick(block, wanted)), token_W: wanted.token_W };
  const cache: LayerCache[] = [];

  let x = embed(weights, config, block);
  config.layerTypes.forEach((type, i) => {
    const looking = i === config.layerTypes.length - 1 ? last : all;
    const { x_MD, kv } = layer(layerWeights(weights, i), config, x, {
      layout: block.layout,
      all,
      looking,
      past: memory && { own: memory.own.cache[i]!, start: memory.own.slots[type].start },
      seen: (own) => seenIn(type, looking, [own, ...prompts.map(({ cache }) => cache[i]!)]),
    });
    x = x_MD;
    cache.push(kv);
  });
  return { hidden_MD: rmsNorm(x, weights["model.norm.weight"] as tf.Tensor1D, config.rmsNormEps), cache };
}

/**
 * Hidden states after the final norm, of all M tokens or of the W wanted, as `forward` gives them. The layers of a segment
 * are one loop: a program that does not grow with them, and of whose activations only what each layer begins with is kept
 * for the gradient (gradient checkpointing, arXiv 1604.06174). `segments` are the numbers of their first layers.
 */
export function forwardInLoops(
  weights: Weights,
  config: Gemma2Config,
  block: Block,
  wanted: Wanted | null,
  segments: readonly number[],
): tf.Tensor2D {
  const { layout } = block;
  const all = queriesOf(block, [{ layout, keys: everyType(ownKeys(block)) }], config);
  const { sliding_attention: sliding, full_attention: full } = all.views[0]!.masks;
  let x = embed(weights, config, block);
  segments.forEach((first, s) => {
    const types = config.layerTypes.slice(first, segments[s + 1]);
    const own = types.map((_, i) => layerWeights(weights, first + i));
    const names = Object.keys(own[0]!);
    const layers = {
      weights: Object.fromEntries(names.map((name) => [name, eachOf(own.map((of) => of[name]!))])),
      slides: tf.tensor1d(
        types.map((type) => type === "sliding_attention"),
        "bool",
      ),
    };
    [x] = scan(
      (x_MD: tf.Tensor2D, of) => {
        const mask_B1TS = sliding === full ? full : (tf.where(of.slides, sliding, full) as tf.Tensor4D);
        const seen = (kv: LayerCache) => [{ layout, mask_B1TS, kv }];
        return [layer(of.weights, config, x_MD, { layout, all, looking: all, past: null, seen }).x_MD, null];
      },
      x,
      layers,
    );
  });
  const x_WD = wanted === null ? x : gatherRows<tf.Rank.R2>(x, wanted.token_W);
  return rmsNorm(x_WD, weights["model.norm.weight"] as tf.Tensor1D, config.rmsNormEps);
}

const keysOf = ({ sliding_attention, full_attention }: ByType<Slots>): ByType<Keys> => ({
  sliding_attention: sliding_attention.keys,
  full_attention: full_attention.keys,
});

const embed = (weights: Weights, config: Gemma2Config, { ids_M }: Block): tf.Tensor2D =>
  gatherRows<tf.Rank.R2>(weights[EMBEDDING]!, ids_M).mul(Math.fround(Math.sqrt(config.hiddenSize)));

/** A layer's tensors by the part of their names that all layers share, such as "mlp.up_proj". */
type LayerWeights = Readonly<Record<string, tf.Tensor>>;

const layerWeights = (weights: Weights, i: number): LayerWeights => {
  const prefix = `model.layers.${i}.`;
  const own = Object.entries(weights).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, tensor]) => [name.slice(prefix.length, -".weight".length), tensor]));
};

/** What a layer needs beside its weights and the hidden states of the block. */
type LayerInputs = {
  /** Where the block stands. */
  readonly layout: Layout;
  readonly all: Queries;
  /** The tokens that look: all of the block's, or those that are wanted of it. */
  readonly looking: Queries & { readonly token_W?: tf.Tensor1D };
  /** The rows that the block is written into, and the slot of its first token. */
  readonly past: { readonly own: LayerCache; readonly start: Slots["start"] } | null;
  /** What the tokens that look see, with the block's own rows. */
  readonly seen: (own: LayerCache) => Seen[];
};

/** The hidden states of the tokens that look, after one layer, and the keys and values that they looked at. */
function layer(
  weights: LayerWeights,
  config: Gemma2Config,
  x_MD: tf.Tensor2D,
  { layout, all, looking, past, seen }: LayerInputs,
): { x_MD: tf.Tensor2D; kv: LayerCache } {
  const norm = (name: string, y: tf.Tensor2D) => rmsNorm(y, weights[name] as tf.Tensor1D, config.rmsNormEps);
  const project = (name: string, y: tf.Tensor2D): tf.Tensor3D =>
    linear(y, weights[`self_attn.${name}`]!).reshape([y.shape[0], -1, config.headDim]);
  const picked = (y: tf.Tensor2D) => (looking.token_W ? gatherRows<tf.Rank.R2>(y, looking.token_W) : y);

  const h = norm("input_layernorm", x_MD);
  const kv = remember(past, {
    k_BKHS: spread(all.rotate(project("k_proj", h)), layout).transpose([0, 1, 3, 2]),
    v_BKSH: spread(project("v_proj", h), layout),
  });
  const q_MNH = looking.rotate(project("q_proj", picked(h)));
  const attended = attention(q_MNH, seen(kv), config);
  const x = picked(x_MD).add<tf.Tensor2D>(
    norm("post_attention_layernorm", linear(attended, weights["self_attn.o_proj"]!)),
  );

  const g = norm("pre_feedforward_layernorm", x);
  const gated = gelu(linear(g, weights["mlp.gate_proj"]!)).mul<tf.Tensor2D>(linear(g, weights["mlp.up_proj"]!));
  return { x_MD: x.add(norm("post_feedforward_layernorm", linear(gated, weights["mlp.down_proj"]!))), kv };
}

/** Soft-capped logits [M, V] of hidden states. The head is the embedding matrix. */
export const logits = (weights: Weights, config: Gemma2Config, hidden_MD: tf.Tensor2D): tf.Tensor2D =>
  softCap(linear(hidden_MD, weights[EMBEDDING]!), config.finalLogitSoftcapping);

/** Empty slots for `rows` rows. */
export function emptyCache(config: Gemma2Config, rows: number, slots: ByType<number>): Cache {
  const { numKeyValueHeads: K, headDim: H } = config;
  return config.layerTypes.map((type) => ({
    k_BKHS: tf.fill([rows, K, H, slots[type]], 0),
    v_BKSH: tf.fill([rows, K, slots[type], H], 0),
  }));
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

/** The keys and values of a block, or those that it is written into. */
function remember(past: LayerInputs["past"], block: LayerCache): LayerCache {
  if (past === null) return block;
  return {
    k_BKHS: dynamicUpdateSlice(past.own.k_BKHS, block.k_BKHS, [0, 0, 0, past.start]) as tf.Tensor4D,
    v_BKSH: dynamicUpdateSlice(past.own.v_BKSH, block.v_BKSH, [0, 0, past.start, 0]) as tf.Tensor4D,
  };
}

/** x / rms(x) * (1 + w) over the last axis. */
const rmsNorm = (x: tf.Tensor2D, w: tf.Tensor1D, eps: number): tf.Tensor2D =>
  x.mul(x.square().mean(-1, true).add(eps).rsqrt()).mul(w.add(1));

/** x @ wT for a checkpoint matrix [out, in]. */
const linear = (x: tf.Tensor2D, w: tf.Tensor): tf.Tensor2D => tf.matMul(x, w as tf.Tensor2D, false, true);

/** GELU in its tanh approximation, gelu_pytorch_tanh: arXiv 1606.08415. */
const gelu = (x: tf.Tensor2D): tf.Tensor2D =>
  x.mul(0.5).mul(
    x
      .add(x.mul(x).mul(x).mul(0.044715))
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1),
  );
