// Matrix products of compiled programs on a CPU by the kernels of matmul.cc.

import { castAttributes } from "./bfloat16.js";
import { addCustomCall } from "./custom-call.js";
import { readsBfloat16 } from "./environment.js";
import { type Attribute, native } from "./native.js";
import { addOp, type Trace } from "./trace.js";

/** Products of fewer multiplications are left to XLA, which builds them into what is around them. */
const SMALLEST = 2 ** 15;

/**
 * Records BatchMatMulV2 of symbols as a call of our kernels, and gives the symbol of the result: float32, which is rounded to
 * bfloat16 where both factors are that. Null where they do not serve: on a GPU, on a processor that they are not for,
 * without XLA, or for batches of which one is repeated.
 */
export function addMatMul(trace: Trace, attributes: readonly Attribute[], inputs: readonly number[]): number | null {
  if (!trace.usesXla || !readsBfloat16) return null;
  const nodes = inputs.map((id) => trace.symbols.get(id)!.node);
  const [isBfloat16A, isBfloat16B] = nodes.map(({ dtype }) => dtype === native.TF_BFLOAT16) as [boolean, boolean];
  if (nodes.some(({ dtype }) => dtype !== native.TF_FLOAT && dtype !== native.TF_BFLOAT16)) return null;
  const [a, b] = nodes.map(({ shape }) => shape!) as [number[], number[]];
  const batch = a.slice(0, -2);
  if (batch.length !== b.length - 2 || batch.some((size, i) => size !== b[i])) return null;

  const isTrue = (name: string) => attributes.some((attribute) => attribute.name === name && attribute.value === true);
  const [transposeA, transposeB] = [isTrue("adj_x"), isTrue("adj_y")];
  const [m, k] = transposeA ? [a.at(-1)!, a.at(-2)!] : [a.at(-2)!, a.at(-1)!];
  const n = b.at(transposeB ? -2 : -1)!;
  const matrices = batch.reduce((x, y) => x * y, 1);
  if (matrices * m * n * k < SMALLEST) return null;

  const text = [matrices, m, n, k, transposeA, transposeB, isBfloat16A, isBfloat16B].map(Number);
  const result = { dtype: native.TF_FLOAT, shape: [...batch, m, n] };
  const product = addCustomCall(trace, "heddle_matmul", text, inputs, result);
  if (!isBfloat16A || !isBfloat16B) return product;
  return addOp(trace, "Cast", castAttributes(native.TF_FLOAT, native.TF_BFLOAT16), [product])[0]!;
}
