// What keeps XLA from computing something long before it is needed.

import type { tf } from "./native.js";
import { addOp, currentTrace, symbolOf, tensorOf, typeAttribute } from "./trace.js";

/**
 * The tensors as they are, but in a compiled function none of them before all of them are there. XLA moves what does not
 * change in a loop out of it, and may begin with everything that depends on nothing: what is made of a large tensor then
 * exists for the whole run. Made of one that comes with what it is used on, it exists while it is used. No gradient.
 */
export function optimizationBarrier(tensors: readonly tf.Tensor[]): tf.Tensor[] {
  const trace = currentTrace();
  if (trace === null || !trace.usesXla) return [...tensors];
  const symbols = tensors.map((tensor) => symbolOf(trace, tensor));
  const types = symbols.map((symbol) => trace.symbols.get(symbol)!.node.dtype);
  return addOp(trace, "XlaOptimizationBarrier", [typeAttribute("T", types)], [symbols]).map((symbol) =>
    tensorOf(trace, symbol),
  );
}
