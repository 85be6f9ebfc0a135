import { defineMethod } from "../method.js";

/** scale times the only model: for recipes that stack layers of several. A scale of 1 keeps every bit. */
export const passthrough = defineMethod({
  description: "the one model as it is, times scale: for stacking layers",
  base: "none",
  maxModels: 1,
  global: {},
  model: {
    scale: { type: "number", default: 1, description: "factor of the weights" },
  },
  passes: [],
  weights: ({ models }) => models.map(({ scale }) => scale),
});
