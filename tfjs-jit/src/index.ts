// tfjs on a current TensorFlow, and jit() for tfjs code. README.md tells how it works.

import "./hooks.js";

export { optimizationBarrier } from "./barrier.js";
export { bfloat16Tensor, isBfloat16, toBfloat16, toFloat32 } from "./bfloat16.js";
export { bitwiseAnd, leftShift, rightShift } from "./bits.js";
export { type Index, op } from "./call-op.js";
export { type Compilation, onCompile } from "./compilations.js";
export { cond, switchCase, whileLoop } from "./control-flow.js";
export { matMulFloat32 } from "./dot.js";
export { device, readsBfloat16 } from "./environment.js";
export { type JitOptions, type Jitted, jit } from "./jit.js";
export { tf } from "./native.js";
export {
  dynamicSlice,
  dynamicUpdateSlice,
  gatherLast,
  gatherRows,
  topK,
} from "./ops.js";
export { randomUniform } from "./random.js";
export { columnSums } from "./row-sums.js";
export { eachOf, type Row, Rows } from "./rows.js";
export { type ScanOptions, scan } from "./scan.js";
export { onFreshTape } from "./tape.js";
export { Variable } from "./variable.js";
