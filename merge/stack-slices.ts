// Layers of models stacked on each other: which tensors each slice takes, and what becomes of their numbers.
import { SafetensorsError } from "safetensors-ts";
import { ModelError } from "../model/errors.js";
import { layerOf } from "./groups.js";
import { makeTensor, type OpenedSource, type SliceWork, withLayer } from "./make-tensor.js";
import type { ModelTensor } from "./model-tensors.js";
import { layerTypes } from "./output-config.js";

/** The tensors of all slices, by name, the layers numbered through. */
export function stackSlices(works: readonly SliceWork[]): Map<string, ModelTensor> {
  const made = new Map<string, ModelTensor>();
  let firstLayer = 0;
  for (const [i, work] of works.entries()) {
    const place = { isFirst: i === 0, isLast: i === works.length - 1 };
    const first = work.sources[0]!;
    for (const name of first.model.tensors.keys()) {
      if (!isInSlice(name, first, place)) continue;
      const index = layerOf(name)?.index;
      const layer = index === undefined ? null : index - first.range[0];
      const target = layer === null ? name : withLayer(name, firstLayer + layer);
      made.set(target, makeTensor(name, layer, target, work));
    }
    checkNoneIsLeft(work, place);
    firstLayer += work.layers;
  }
  return made;
}

interface SlicePlace {
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

/** Whether a slice takes a tensor of a source: of its layers, embeddings if it is the first, what follows the layers if the last. */
function isInSlice(name: string, { range: [begin, end] }: OpenedSource, { isFirst, isLast }: SlicePlace): boolean {
  const index = layerOf(name)?.index;
  if (index === undefined) return isBeforeLayers(name) ? isFirst : isLast;
  return index >= begin && index < end;
}

/** Embeddings of tokens and positions; the head of GPT-NeoX, embed_out, is none. */
const isBeforeLayers = (name: string): boolean => /embed(?!_out\b)|\bwte\b|\bwpe\b/.test(name);

/** Throws where another source has a tensor that the first has not: it would be dropped. */
function checkNoneIsLeft({ sources: [first, ...others] }: SliceWork, place: SlicePlace): void {
  const { model, range } = first!;
  for (const other of others) {
    for (const { name, shape } of other.model.tensors.values()) {
      if (!isInSlice(name, other, place)) continue;
      const index = layerOf(name)?.index;
      const own = index === undefined ? name : withLayer(name, index - other.range[0] + range[0]);
      if (model.tensors.has(own)) continue;
      const problem = `has a tensor "${name}" of shape [${shape}], and ${model.path} has no "${own}" to merge it with`;
      throw new SafetensorsError(other.model.path, problem, name);
    }
  }
}

/** How many layers the slices make, and the type of each, which is that of the layer in its slice's first source. */
export function layersOf(works: readonly SliceWork[]): {
  readonly count: number;
  readonly types: readonly string[] | null;
} {
  const types = works.map(({ sources }) => {
    const { model, range } = sources[0]!;
    return layerTypes(model.config, model.layers)?.slice(...range) ?? null;
  });
  const count = works.reduce((sum, { layers }) => sum + layers, 0);
  const without = types.indexOf(null);
  if (without < 0) return { count, types: types.flatMap((type) => type ?? []) };
  const having = types.findIndex((type) => type !== null);
  if (having < 0) return { count, types: null };
  const [lacking, other] = [works[without]!, works[having]!].map(({ sources }) => sources[0]!.model.path);
  throw new ModelError(lacking!, `config.json has no layer_types, which ${other}'s has: expected them in both`);
}
