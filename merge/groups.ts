// Which tensors share one angle in SLERP.

/** `layer` is one angle per transformer layer, as in WARP; tensors outside the layers are groups of their own. */
export type Granularity = "tensor" | "layer" | "model";

/** From fine to coarse. */
export const GRANULARITIES: readonly Granularity[] = ["tensor", "layer", "model"];

/** The layer that a tensor belongs to: "model.layers.3" and 3 of "model.layers.3.mlp.up_proj.weight"; null outside layers. */
export function layerOf(name: string): { readonly layer: string; readonly index: number } | null {
  const found = /^(?:.*?\.)?(?:layers?|h|blocks?)\.(\d+)(?=\.)/.exec(name);
  return found && { layer: found[0], index: Number(found[1]) };
}

/** What a tensor belongs to: its layer, or itself outside layers; itself; "model". */
export function groupOf(name: string, granularity: Granularity): string {
  switch (granularity) {
    case "model":
      return "model";
    case "layer":
      return layerOf(name)?.layer ?? name;
    case "tensor":
      return name;
    default:
      throw new RangeError(`granularity should be one of ${GRANULARITIES.join(", ")}, got "${granularity}"`);
  }
}
