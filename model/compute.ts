/** How a model is computed, which its files do not say. Imports nothing, so that plans need no TensorFlow. */

/** What matrix products are computed in. Norms, softmax and losses are float32 whatever it is. */
export const COMPUTE_DTYPES = ["float32", "bfloat16"] as const;
export type ComputeDtype = (typeof COMPUTE_DTYPES)[number];

/** Fewer bits than a checkpoint has, for matrices that do not learn (docs/quantisation.md). */
export type Quantisation = "nf4" | "int8";

/** What `load_in_4bit` and `load_in_8bit` stand for, of which at most one is true. */
export const quantisationOf = (in4bit = false, in8bit = false): Quantisation | null =>
  in4bit ? "nf4" : in8bit ? "int8" : null;

/** Logits that exist at one time, in elements: 128 MB, and half a GB on a GPU, which a chunk must fill with work. */
export const MAX_LOGITS = { cpu: 2 ** 25, gpu: 2 ** 27 } as const;
/** Scores of attention that exist at one time, in elements: 64 MB. */
export const MAX_SCORES = 2 ** 24;
/** The largest part of a head that is worked through in parts, in elements: 64 MB in float32, half a GB on a GPU. */
export const MAX_HEAD_PART = { cpu: 2 ** 24, gpu: 2 ** 27 } as const;

/** Layers that are computed in one loop, since they agree in shapes and dtypes, and in whether they learn. */
export type Segment = { readonly first: number; readonly count: number };

export type Compute = {
  readonly dtype: ComputeDtype;
  /** What the layers' matrices are kept in; null: what they are computed in, unless weights are loaded otherwise. */
  readonly quantised: Quantisation | null;
  /** All layers, in loops; null: one after the other. */
  readonly segments: readonly Segment[] | null;
};

export const PLAIN: Compute = { dtype: "float32", quantised: null, segments: null };

/** Layers in as few segments as there can be: neighbours are in one where `kindOf` says the same of them. */
export function segmentsOf(layers: number, kindOf: (layer: number) => string): Segment[] {
  const segments: { first: number; count: number }[] = [];
  for (let layer = 0; layer < layers; layer++) {
    if (layer > 0 && kindOf(layer) === kindOf(layer - 1)) segments.at(-1)!.count++;
    else segments.push({ first: layer, count: 1 });
  }
  return segments;
}
