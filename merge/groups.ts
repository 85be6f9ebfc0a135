// Which tensors share one angle in SLERP.

/** `layer` is one angle per transformer layer, as in WARP; tensors outside the layers are groups of their own. */
export type Granularity = "tensor" | "layer" | "model";

export const GRANULARITIES: readonly Granularity[] = ["tensor", "layer", "model"];

/** The layer that a tensor belongs to: "model.layers.3" and 3 of "model.layers.3.mlp.up_proj.weight"; null outside layers. */
export function layerOf(name: string): { readonly layer: string; readonly index: number } | null {
  const found = /^(?:.*?\.)?(?:layers?|h|blocks?)\.(\d+)(?=\.)/.exec(name);
  return found && { layer: found[0], index: Number(found[1]) };
}

/** Groups of tensor names, in the order of their first tensor. The one group of `model` is called "model". */
export function groupTensors(names: readonly string[], granularity: Granularity): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const group = groupOf(name, granularity);
    const members = groups.get(group);
    if (members) members.push(name);
    else groups.set(group, [name]);
  }
  return groups;
}

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
