// The merge methods by the names that recipes use: mergekit's, and those of WARP.
import type { Method } from "./method.js";

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

const unfinished: Method = {
  description: "not written yet",
  base: "optional",
  global: {},
  model: {},
  passes: [],
  combine: () => {
    throw new Error("not written yet");
  },
};

export const METHODS: Readonly<Record<MethodName, Method>> = {
  linear: unfinished,
  slerp: unfinished,
  nuslerp: unfinished,
  multislerp: unfinished,
  karcher: unfinished,
  task_arithmetic: unfinished,
  ties: unfinished,
  dare_linear: unfinished,
  dare_ties: unfinished,
  della: unfinished,
  della_linear: unfinished,
  breadcrumbs: unfinished,
  breadcrumbs_ties: unfinished,
  model_stock: unfinished,
  sce: unfinished,
  nearswap: unfinished,
  arcee_fusion: unfinished,
  passthrough: unfinished,
  warp: unfinished,
  ema: unfinished,
};
