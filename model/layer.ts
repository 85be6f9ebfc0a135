/**
 * A layer of Gemma 2 or 3, and the functions that it is made of.
 *
 * Shape suffixes: M tokens of a list, D model, N query heads, K key/value heads, H head size, B rows, S slots.
 */
import { fromFloat32, toFloat32 as toFloat32Array } from "safetensors-ts";
import { dynamicUpdateSlice, gatherRows, type Index, randomUniform, tf, toBfloat16, toFloat32 } from "tfjs-jit";
import { attention, type LayerCache, type Layout, type Seen, spread } from "./attention.js";
import type { ComputeDtype } from "./compute.js";
import type { ModelConfig } from "./config.js";
import { LORA_PARTS } from "./lora.js";
import { isQuantised, type Matrix, matrixOf, timesQuantised } from "./quantised.js";
import { type Rotation, rotate } from "./rotary.js";

/** A layer's tensors by the part of their names that all layers share, such as "mlp.up_proj". */
export type LayerWeights = Readonly<Record<string, tf.Tensor>>;

/** What a layer needs beside its weights and the hidden states of the block. */
export type LayerInputs = {
  /** Where the block stands. */
  readonly layout: Layout;
  /** Of all the block's tokens. */
  readonly rotation: Rotation;
  /** The tokens that look: all of the block's (null), or those that are wanted of it. */
  readonly looking: { readonly rotation: Rotation; readonly token_W: tf.Tensor1D | null };
  /** The rows that the block is written into, and the slot of its first token. */
  readonly past: { readonly own: LayerCache; readonly start: Index } | null;
  /** What the tokens that look see, with the block's own rows. */
  readonly seen: (own: LayerCache) => Seen[];
};

/** The hidden states of the tokens that look, after one layer, and the keys and values that they looked at. */
export function layer(
  weights: LayerWeights,
  config: ModelConfig,
  x_MD: tf.Tensor2D,
  { layout, rotation, looking, past, seen }: LayerInputs,
): { x_MD: tf.Tensor2D; kv: LayerCache } {
  const norm = <T extends tf.Tensor>(name: string, y: T) => rmsNorm(y, weights[name]!, config.rmsNormEps);
  const times = (name: string, y: tf.Tensor2D) =>
    adapted(linear(y, matrixOf(weights, name), config.compute.dtype), weights, name, y);
  const project = (name: string, y: tf.Tensor2D): tf.Tensor3D =>
    times(`self_attn.${name}`, y).reshape([y.shape[0], -1, config.headDim]);
  const normed = (name: string, y: tf.Tensor3D) => (config.normsQueriesAndKeys ? norm(`self_attn.${name}`, y) : y);
  const picked = (y: tf.Tensor2D) => (looking.token_W ? gatherRows<tf.Rank.R2>(y, looking.token_W) : y);

  const h = norm("input_layernorm", x_MD);
  const kv = remember(past, {
    k_BKHS: spread(rotate(normed("k_norm", project("k_proj", h)), rotation), layout).transpose([0, 1, 3, 2]),
    v_BKSH: spread(project("v_proj", h), layout),
  });
  const q_MNH = rotate(normed("q_norm", project("q_proj", picked(h))), looking.rotation);
  const attended = attention(q_MNH, seen(kv), config);
  const x = picked(x_MD).add<tf.Tensor2D>(norm("post_attention_layernorm", times("self_attn.o_proj", attended)));

  const g = norm("pre_feedforward_layernorm", x);
  const gated = gelu(times("mlp.gate_proj", g)).mul<tf.Tensor2D>(times("mlp.up_proj", g));
  return { x_MD: x.add(norm("post_feedforward_layernorm", times("mlp.down_proj", gated))), kv };
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
export const rmsNorm = <T extends tf.Tensor>(x: T, w: tf.Tensor, eps: number): T =>
  x.mul(x.square().mean(-1, true).add(eps).rsqrt()).mul(toFloat32(w).add(1));

/** x @ wT for a checkpoint matrix [out, in]: float32, also where it was computed in bfloat16. */
function linear(x: tf.Tensor2D, w: Matrix, dtype: ComputeDtype): tf.Tensor2D {
  const product = (a: tf.Tensor2D, b: tf.Tensor2D, isTransposed: boolean): tf.Tensor2D =>
    dtype === "float32"
      ? tf.matMul(a, b, false, isTransposed)
      : (toFloat32(tf.matMul(toBfloat16(a), toBfloat16(b), false, isTransposed)) as tf.Tensor2D);
  return isQuantised(w) ? timesQuantised(x, w, product) : product(x, w, true);
}

/** y W^T with what an adapter adds to it, if there is one: scale (y A^T) B^T, in float32 (model/lora.ts). */
function adapted(yW: tf.Tensor2D, weights: LayerWeights, name: string, y: tf.Tensor2D): tf.Tensor2D {
  const part = (of: keyof typeof LORA_PARTS) => weights[`${name}.${LORA_PARTS[of]}`];
  const [a, b, scale, random, keep] = [part("a"), part("b"), part("scale"), part("random"), part("keep")];
  if (!a || !b || !scale) return yW;
  const kept = random && keep ? dropout(y, random, keep) : y;
  const yA = tf.matMul(kept, a as tf.Tensor2D, false, true).mul<tf.Tensor2D>(scale);
  return yW.add(tf.matMul(yA, b as tf.Tensor2D, false, true));
}

/** y / keep where a random number is below `keep`, else 0; `random` is its seed and counter, int32 [2]. */
function dropout(y: tf.Tensor2D, random: tf.Tensor, keep: tf.Tensor): tf.Tensor2D {
  const [seed, counter] = [0, 1].map((i) => random.slice([i], [1]).reshape([]));
  return y.mul(randomUniform(seed!, counter!, y.shape).less(keep).toFloat().div(keep));
}

/** A number as transformers has it in a model of that dtype. */
export const roundTo = (dtype: ComputeDtype, x: number): number =>
  dtype === "float32" ? Math.fround(x) : toFloat32Array(fromFloat32(Float32Array.of(x), "BF16"), "BF16")[0]!;

/** GELU in its tanh approximation, gelu_pytorch_tanh: arXiv 1606.08415. */
const gelu = (x: tf.Tensor2D): tf.Tensor2D =>
  x.mul(0.5).mul(
    x
      .add(x.mul(x).mul(x).mul(0.044715))
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1),
  );
