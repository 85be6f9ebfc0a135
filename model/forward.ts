/**
 * A model of the Gemma family as functions on plain weights, named as in the checkpoint. What families differ in, their
 * files have put into the config.
 *
 * Shape suffixes: M tokens of a list, in a grid of B rows and T slots; S slots that a row may look at; W tokens of the
 * list whose hidden states are wanted; D model, V vocabulary, N query heads, K key/value heads, H head size.
 * Nothing here reads a tensor, so all of it can be traced by jit.
 */
import { device, eachOf, gatherRows, scan, tf, toFloat32 } from "tfjs-jit";
import {
  type Block,
  type Grid,
  type LayerCache,
  type Layout,
  type Looking,
  ownKeys,
  pick,
  type Queries,
  queriesOf,
  seenIn,
  type Wanted,
} from "./attention.js";
import type { ComputeDtype, Segment } from "./compute.js";
import type { ModelConfig } from "./config.js";
import { type ByType, everyType } from "./config-keys.js";
import { type LazyLogits, logitsOf } from "./head.js";
import { type LayerWeights, layer, rmsNorm, roundTo } from "./layer.js";
import { int8Rows, isQuantised, matrixOf } from "./quantised.js";
import type { Rotation } from "./rotary.js";
import { changeOf, EMBEDDING, layerOf } from "./shapes.js";
import { either, type Keys } from "./sight.js";

/** Tensors by their names in the checkpoint, such as "model.layers.0.self_attn.q_proj.weight". Matrices are [out, in]. */
export type Weights = Readonly<Record<string, tf.Tensor>>;

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
  config: ModelConfig,
  block: Block,
  memory: Memory | null = null,
  wanted: Wanted | null = null,
): { hidden_MD: tf.Tensor2D; cache: Cache } {
  const prompts = memory?.prompts ? [memory.prompts] : [];
  const keys = memory === null ? everyType(ownKeys(block)) : keysOf(memory.own.slots);
  const own = (layout: Layout): Layout => (memory === null ? layout : { ...layout, inOrder: false });
  const queries = (tokens: Looking) => queriesOf(tokens, [{ layout: own(tokens.layout), keys }, ...prompts], config);
  const all = queries(block);
  const last: Queries & { token_W: tf.Tensor1D | null } =
    wanted === null ? { ...all, token_W: null } : { ...queries(pick(block, wanted)), token_W: wanted.token_W };
  const layers = layersOf(weights);
  const cache: LayerCache[] = [];

  let x = embed(weights, config, block);
  config.layerTypes.forEach((type, i) => {
    const looking = i === config.layerTypes.length - 1 ? last : { ...all, token_W: null };
    const { x_MD, kv } = layer(layers[i]!, config, x, {
      layout: block.layout,
      rotation: all.rotations[type],
      looking: { rotation: looking.rotations[type], token_W: looking.token_W },
      past: memory && { own: memory.own.cache[i]!, start: memory.own.slots[type].start },
      seen: (own) => seenIn(type, looking, [own, ...prompts.map(({ cache }) => cache[i]!)]),
    });
    x = x_MD;
    cache.push(kv);
  });
  return { hidden_MD: rmsNorm(x, weights["model.norm.weight"]!, config.rmsNormEps), cache };
}

/** Hidden states after the final norm, of all M tokens or of the W wanted, computed as the config says. */
export const hiddenStates = (
  weights: Weights,
  config: ModelConfig,
  block: Block,
  wanted: Wanted | null,
): tf.Tensor2D =>
  config.compute.segments === null
    ? forward(weights, config, block, null, wanted).hidden_MD
    : forwardInLoops(weights, config, block, wanted, config.compute.segments);

/**
 * Hidden states after the final norm, of all M tokens or of the W wanted, as `forward` gives them. The layers of a segment
 * are one loop: a program that does not grow with them, and of whose activations only what each layer begins with is kept
 * for the gradient (gradient checkpointing, arXiv 1604.06174). Weights may hold what is added to a segment's (`changeOf`).
 */
export function forwardInLoops(
  weights: Weights,
  config: ModelConfig,
  block: Block,
  wanted: Wanted | null,
  segments: readonly Segment[],
): tf.Tensor2D {
  const { layout } = block;
  const all = queriesOf(block, [{ layout, keys: everyType(ownKeys(block)) }], config);
  const { sliding_attention: sliding, full_attention: full } = all.views[0]!.sights;
  const ofLayers = layersOf(weights);
  let x = embed(weights, config, block);
  for (const { first, count } of segments) {
    const types = config.layerTypes.slice(first, first + count);
    const own = ofLayers.slice(first, first + count);
    const names = Object.keys(own[0]!);
    const changes = names.flatMap((name) => {
      const change = weights[changeOf(first, name)];
      return change ? [[name, change] as const] : [];
    });
    const layers = {
      weights: Object.fromEntries(names.map((name) => [name, eachOf(own.map((of) => of[name]!))])),
      changes: Object.fromEntries(changes),
      slides: tf.tensor1d(
        types.map((type) => type === "sliding_attention"),
        "bool",
      ),
    };
    [x] = scan(
      (x_MD: tf.Tensor2D, { weights, changes, slides }) => {
        const changed = Object.entries(changes).map(([name, change]) => [name, weights[name]!.add(change)]);
        const of = { ...weights, ...(Object.fromEntries(changed) as LayerWeights) };
        const rotation = rotationOf(slides, all.rotations);
        const looking = { rotation, token_W: null };
        const seen = (kv: LayerCache) => [{ layout, sight: either(slides, sliding, full), kv }];
        return [layer(of, config, x_MD, { layout, rotation, looking, past: null, seen }).x_MD, null];
      },
      x,
      layers,
    );
  }
  const x_WD = wanted === null ? x : gatherRows<tf.Rank.R2>(x, wanted.token_W);
  return rmsNorm(x_WD, weights["model.norm.weight"]!, config.rmsNormEps);
}

/** The rotation of a layer of which it is data whether it slides. */
function rotationOf(
  slides: tf.Tensor,
  { sliding_attention: sliding, full_attention: full }: ByType<Rotation>,
): Rotation {
  if (sliding === full) return full;
  return {
    cos_M1H: tf.where(slides, sliding.cos_M1H, full.cos_M1H) as tf.Tensor3D,
    sin_M1H: tf.where(slides, sliding.sin_M1H, full.sin_M1H) as tf.Tensor3D,
  };
}

const keysOf = ({ sliding_attention, full_attention }: ByType<Slots>): ByType<Keys> => ({
  sliding_attention: sliding_attention.keys,
  full_attention: full_attention.keys,
});

function embed(weights: Weights, config: ModelConfig, { ids_M }: Block): tf.Tensor2D {
  const table = matrixOf(weights, EMBEDDING);
  const rows = isQuantised(table) ? int8Rows(table, ids_M) : toFloat32(gatherRows(table, ids_M));
  return rows.mul(roundTo(config.compute.dtype, Math.sqrt(config.hiddenSize)));
}

function layersOf(weights: Weights): LayerWeights[] {
  const layers: LayerWeights[] = [];
  for (const [tensor, weight] of Object.entries(weights)) {
    const own = layerOf(tensor);
    if (own !== null) layers[own.layer] = { ...layers[own.layer], [own.name]: weight };
  }
  return layers;
}

/** On a CPU products in bfloat16 are no faster than in float32, which the head is computed in there whatever the layers are. */
export const headDtype = ({ compute }: ModelConfig): ComputeDtype => (device === "gpu" ? compute.dtype : "float32");

/** The head on hidden states after the final norm; it is the embedding matrix. */
export const headOf = (weights: Weights, config: ModelConfig, hidden_WD: tf.Tensor2D): LazyLogits => ({
  hidden_WD,
  embedding_VD: matrixOf(weights, EMBEDDING),
  softCap: config.finalLogitSoftcapping,
  dtype: headDtype(config),
});

/** Soft-capped logits [M, V] of hidden states, float32. */
export const logits = (weights: Weights, config: ModelConfig, hidden_MD: tf.Tensor2D): tf.Tensor2D =>
  logitsOf(headOf(weights, config, hidden_MD));

/** Empty slots for `rows` rows. */
export function emptyCache(config: ModelConfig, rows: number, slots: ByType<number>): Cache {
  const { numKeyValueHeads: K, headDim: H } = config;
  return config.layerTypes.map((type) => ({
    k_BKHS: tf.fill([rows, K, H, slots[type]], 0),
    v_BKSH: tf.fill([rows, K, slots[type], H], 0),
  }));
}
