// Calls of compiled programs into the binding (custom-calls.h).

import { native } from "./native.js";
import { addOp, stringAttribute, type Trace, typeAttribute } from "./trace.js";

/** Records a call with that text, and gives the symbol of its result. */
export function addCustomCall(
  trace: Trace,
  target: "heddle_matmul" | "heddle_gather",
  text: readonly number[],
  inputs: readonly number[],
  result: { readonly dtype: number; readonly shape: readonly number[] },
): number {
  const dtypes = inputs.map((id) => trace.symbols.get(id)!.node.dtype);
  const attributes = [
    stringAttribute("call_target_name", target),
    stringAttribute("backend_config", text.join(" ")),
    { name: "has_side_effect", type: native.TF_ATTR_BOOL, value: false },
    typeAttribute("operand_dtypes", dtypes),
    typeAttribute("result_dtypes", [result.dtype]),
    { name: "result_shapes", type: native.TF_ATTR_SHAPE, value: [result.shape] },
  ];
  return addOp(trace, "XlaCustomCallV2", attributes, [inputs])[0]!;
}
