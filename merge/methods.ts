// The merge methods by the names that recipes use: mergekit's, and those of WARP.
import type { Method } from "./method.js";
import { arceeFusion } from "./methods/arcee-fusion.js";
import { breadcrumbs, breadcrumbsTies } from "./methods/breadcrumbs.js";
import { dareLinear, dareTies } from "./methods/dare.js";
import { della, dellaLinear } from "./methods/della.js";
import { ema } from "./methods/ema.js";
import { karcher } from "./methods/karcher.js";
import { linear } from "./methods/linear.js";
import { modelStock } from "./methods/model-stock.js";
import { multislerp } from "./methods/multislerp.js";
import { nearswap } from "./methods/nearswap.js";
import { nuslerp } from "./methods/nuslerp.js";
import { passthrough } from "./methods/passthrough.js";
import { sce } from "./methods/sce.js";
import { slerp } from "./methods/slerp.js";
import { taskArithmetic } from "./methods/task-arithmetic.js";
import { ties } from "./methods/ties.js";
import { warp } from "./methods/warp.js";

export type MethodName =
  | "linear"
  | "slerp"
  | "nuslerp"
  | "multislerp"
  | "karcher"
  | "task_arithmetic"
  | "ties"
  | "dare_linear"
  | "dare_ties"
  | "della"
  | "della_linear"
  | "breadcrumbs"
  | "breadcrumbs_ties"
  | "model_stock"
  | "sce"
  | "nearswap"
  | "arcee_fusion"
  | "passthrough"
  | "warp"
  | "ema";

export const METHODS: Readonly<Record<MethodName, Method>> = {
  linear,
  slerp,
  nuslerp,
  multislerp,
  karcher,
  task_arithmetic: taskArithmetic,
  ties,
  dare_linear: dareLinear,
  dare_ties: dareTies,
  della,
  della_linear: dellaLinear,
  breadcrumbs,
  breadcrumbs_ties: breadcrumbsTies,
  model_stock: modelStock,
  sce,
  nearswap,
  arcee_fusion: arceeFusion,
  passthrough,
  warp,
  ema,
};
