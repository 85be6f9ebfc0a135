/** A model in training: what of it learns, how its layers are computed, and what the optimiser keeps. */
import type { Segment } from "../model/compute.js";
import { ModelError } from "../model/errors.js";
import {
  disposeParameters,
  isCompact,
  layersAlike,
  type Parameters,
  zeroParameters,
  zerosLike,
} from "../model/parameters.js";
import { isPart } from "../model/quantised.js";
import { changeOf, layerOf } from "../model/shapes.js";
import { type LearningOptions, learning } from "./learning.js";
import { createDropout, type Dropout } from "./lora.js";

export type Trainable = {
  /** What learns, in float32. */
  readonly parameters: Parameters;
  /** The rest of the model. */
  readonly frozen: Parameters;
  /** AdamW's moments of what learns. */
  readonly m: Parameters;
  readonly v: Parameters;
  /** Gradients of the micro-batches of this step so far, as `gradientShapes` has them; {} where a step is one batch. */
  readonly sums: Parameters;
  /** With gradient checkpointing the layers in loops, else null: the model must be computed so. */
  readonly segments: readonly Segment[] | null;
  /** Of an adapter's inputs in training steps; null for none. */
  readonly dropout: Dropout | null;
};

/** Names as in the config. */
export type TrainableOptions = LearningOptions & {
  /** Frozen bfloat16 layers are computed in loops whatever it says. @default false */
  readonly gradient_checkpointing?: boolean;
  /** @default 1 */
  readonly gradient_accumulation_steps?: number;
};

/**
 * Parameters with moments of zero.
 * @throws ModelError if a pattern matches no parameter
 */
export function createTrainable(
  all: Parameters,
  {
    trainable = null,
    lora = null,
    gradient_checkpointing: isInLoops = false,
    gradient_accumulation_steps: parts = 1,
  }: TrainableOptions = {},
): Trainable {
  const learns = learning({ trainable, lora }, Object.keys(all));
  const pick = (isWanted: boolean) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => learns(name) === isWanted));
  const parameters = pick(true);
  const packed = Object.keys(parameters).find(isPart);
  if (packed !== undefined) {
    throw new ModelError(
      "trainable",
      `"${packed}" is of a quantised matrix, which learns nothing: set lora, or other patterns`,
    );
  }
  const frozen = pick(false);
  // Where memory is scarce enough to keep layers in bfloat16 or less, their activations are not kept either; nor is float32 of
  // all of them at once, where it is made.
  const segments = isInLoops || isCompact(frozen) ? layersAlike(all, learns) : null;
  return {
    parameters,
    frozen,
    m: zerosLike(parameters),
    v: zerosLike(parameters),
    sums: parts === 1 ? {} : zeroParameters(gradientShapes({ parameters, segments })),
    segments,
    dropout: createDropout(lora?.lora_dropout ?? 0),
  };
}

/** Where a parameter's gradient is: a tensor of its own (null), or a row of its segment's. */
export type Place = { readonly name: string; readonly row: number | null };

export function placeOf(parameter: string, segments: readonly Segment[] | null): Place {
  const own = layerOf(parameter);
  if (own === null || segments === null) return { name: parameter, row: null };
  const { first } = segments.findLast((segment) => segment.first <= own.layer)!;
  return { name: changeOf(first, own.name), row: own.layer - first };
}

/** The shapes of the gradients: with segments, those of a loop's layers are one, stacked. */
export function gradientShapes({
  parameters,
  segments,
}: Pick<Trainable, "parameters" | "segments">): Record<string, number[]> {
  const shapes: Record<string, number[]> = {};
  for (const [parameter, { shape }] of Object.entries(parameters)) {
    const { name, row } = placeOf(parameter, segments);
    // Rows come in order: the last one tells how many there are.
    shapes[name] = row === null ? [...shape] : [row + 1, ...shape];
  }
  return shapes;
}

/** Hands a model in training (`createTrainable`) to `work`. What the optimiser keeps is freed however that ends. */
export async function withTrainable<R>(
  all: Parameters,
  options: TrainableOptions,
  work: (trainable: Trainable) => Promise<R>,
): Promise<R> {
  const trainable = createTrainable(all, options);
  try {
    return await work(trainable);
  } finally {
    disposeOptimiser(trainable);
  }
}

/** Frees what the optimiser keeps; the model's parameters stay. */
export function disposeOptimiser({ m, v, sums, dropout }: Trainable): void {
  dropout?.seed.dispose();
  for (const parameters of [m, v, sums]) disposeParameters(parameters);
}
