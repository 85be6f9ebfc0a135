// One op of tfjs' tape that is made of many.

import { engine, tf } from "./native.js";

/** Whether ops that run now are recorded for a gradient. */
export const isTapeOn = (): boolean => engine.state.gradientDepth > 0 && engine.state.kernelDepth === 0;

/**
 * Runs `fn` as if no gradient was being taken, so that it may take its own: tfjs' tape is global, and the outer one
 * records nothing of it.
 */
export function onFreshTape<R>(fn: () => R): R {
  const { state } = engine;
  const { activeTape, gradientDepth, kernelDepth } = state;
  Object.assign(state, { activeTape: null, gradientDepth: 0, kernelDepth: 0 });
  try {
    return fn();
  } finally {
    // A gradient that failed leaves its tape behind, with what it had kept.
    for (const { saved } of state.activeTape ?? []) for (const tensor of saved) tensor.dispose();
    Object.assign(state, { activeTape, gradientDepth, kernelDepth });
  }
}

/**
 * Runs `forward` as one op of the tape; it says itself which tensors its outputs depend on. `backward` gets the gradients
 * of the outputs, null where nothing depends on one, and gives those of the inputs whose numbers are in `wanted`, in that
 * order: the others lead to no tensor that a gradient was asked of. What `backward` uses must be kept until then.
 */
export function onTape(
  forward: () => { outputs: tf.Tensor[]; inputs: readonly tf.Tensor[] },
  backward: (dys: readonly (tf.Tensor | null)[], wanted: readonly number[]) => readonly tf.Tensor[],
): tf.Tensor[] {
  const isRecorded = isTapeOn();
  const inputs: Record<string, tf.Tensor> = {};
  const outputs = engine.runKernelFunc({
    inputs,
    attrs: {},
    forwardFunc: () => {
      const op = forward();
      for (const [i, input] of op.inputs.entries()) inputs[i] = input;
      return op.outputs;
    },
    backwardsFunc: () => ({}),
  }) as tf.Tensor[];
  // tfjs differentiates a copy of the node that has the wanted inputs only; its own gradient would not see these, and
  // would compute zeros for null.
  const node = isRecorded ? engine.state.activeTape?.at(-1) : undefined;
  if (node !== undefined)
    node.gradient = function (dys) {
      const wanted = Object.keys(this.inputs);
      const gradients = backward(dys, wanted.map(Number));
      // tfjs disposes what it adds up.
      return Object.fromEntries(wanted.map((name, i) => [name, () => gradients[i]!.clone()]));
    };
  return outputs;
}

/**
 * The vector-Jacobian product: gradients at xs of f, given those of its outputs. f refers to the xs by itself. Zeros
 * where it depends on none.
 */
export function pullBack(
  f: () => readonly tf.Tensor[],
  xs: readonly tf.Tensor[],
  dys: readonly tf.Tensor[],
): tf.Tensor[] {
  const withGradientsDys = () => {
    const inputs = f();
    const [seed] = onTape(
      () => ({ outputs: [tf.scalar(0)], inputs }),
      (_, wanted) => wanted.map((i) => dys[i]!),
    );
    return seed!;
  };
  const { grads } = engine.gradients(withGradientsDys, [...xs], null, true);
  return grads.map((gradient, i) => gradient ?? tf.zerosLike(xs[i]!));
}
