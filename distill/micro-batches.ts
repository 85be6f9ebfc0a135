/** One optimiser step on a batch that is computed in parts, so that its activations need not fit into memory at once. */
import { tf } from "tfjs-jit";
import { type Batch, listSequences, type Sequence, type Sizes } from "../model/batch.js";
import { type BatchTensors, batchTensors } from "../model/scoring.js";
import type { Optimiser, StepResult } from "../student/optimiser.js";
import type { Own } from "./training.js";

/** A part of a step's batch. */
export type MicroBatch = { readonly batch: Batch; readonly tensors: BatchTensors };

/** Sequences in parts of `sizes.rows` each, whose tensors are the step's own. */
export const microBatches = (sequences: readonly Sequence[], sizes: Sizes, own: Own): MicroBatch[] =>
  Array.from({ length: sequences.length / sizes.rows }, (_, part) => {
    const batch = listSequences(sequences.slice(part * sizes.rows, (part + 1) * sizes.rows), sizes);
    return { batch, tensors: own(batchTensors(batch)) };
  });

/** Tokens that count, of all parts. */
export const countedTokens = (parts: readonly MicroBatch[]): number =>
  parts.reduce((sum, { batch }) => batch.counted.reduce((a, b) => a + b, sum), 0);

/**
 * Learns from the parts, one after the other: the last one gets the optimiser. Parts whose losses are divided by what the
 * whole step counts give its loss and gradient, whatever their number. Frees each part once it has learnt from it.
 */
export async function learnFromParts<P extends MicroBatch>(
  parts: readonly P[],
  optimiser: Optimiser,
  learnFrom: (part: P, optimiser: Optimiser | null) => StepResult | Promise<StepResult>,
): Promise<{ loss: number; grad_norm: number }> {
  let loss = 0;
  let gradNorm = Number.NaN;
  for (const [i, part] of parts.entries()) {
    const result = await learnFrom(part, i === parts.length - 1 ? optimiser : null);
    try {
      loss += result.loss.dataSync()[0]!;
      if (result.gradNorm !== null) gradNorm = result.gradNorm.dataSync()[0]!;
    } finally {
      tf.dispose([result, part.tensors] as unknown as tf.TensorContainer);
    }
  }
  return { loss, grad_norm: gradNorm };
}
