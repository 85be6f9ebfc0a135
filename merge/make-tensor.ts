// One tensor of a merge: which tensor of each source goes into it, with which parameters.
import { isFloatDtype, SafetensorsError } from "safetensors-ts";
import { layerOf } from "./groups.js";
import type { Settings } from "./method.js";
import { METHODS } from "./methods.js";
import { type ModelTensor, type ModelTensors, vocabularyHint } from "./model-tensors.js";
import { parameterValues, tensorContext } from "./parameters.js";
import type { TensorPlace } from "./plan.js";
import { type Recipe, RecipeError, type Slice, type SliceSource } from "./recipe.js";

/** A source of a slice, its model opened. */
export interface OpenedSource {
  readonly model: ModelTensors;
  /** Layers [begin, end). */
  readonly range: readonly [number, number];
  readonly parameters: SliceSource["parameters"];
  readonly isBase: boolean;
}

/** What is the same for all tensors of a slice. */
export interface SliceWork {
  readonly recipe: Recipe;
  /** See MergeSource. */
  readonly merge: number;
  readonly slice: Slice;
  readonly sources: readonly OpenedSource[];
  readonly base: ModelTensors | null;
  readonly seed: number;
  readonly layers: number;
}

/**
 * The tensor `target` of the result, which is `name` in the first source. `layer` counts in the slice, and is null outside
 * the layers. Throws where sources lack the tensor or have it in another shape, and where parameters have no value for it.
 */
export function makeTensor(name: string, layer: number | null, target: string, work: SliceWork): ModelTensor {
  const { recipe, merge, slice, sources, seed } = work;
  const method = METHODS[recipe.method];
  const base = method.base === "none" ? null : work.base;
  const merged = sources.filter(({ isBase }) => !(base && isBase));
  const baseRange = (sources.find(({ isBase }) => isBase) ?? sources[0]!).range;
  const from = [...(base ? [{ model: base, range: baseRange }] : []), ...merged];
  const found = from.map(({ model, range }) => {
    const own = layer === null ? name : withLayer(name, range[0] + layer);
    return findTensor(model, own, target);
  });
  checkAlike(found, from);
  const { dtype, shape, source } = found[0]!;
  if (!isFloatDtype(dtype)) {
    const sameAs = found.flatMap((tensor, i) => [...(i > 0 ? [placeOf(tensor)] : []), ...(tensor.sameAs ?? [])]);
    return { name: target, dtype, shape, source, sameAs };
  }
  const levels = [slice.parameters, recipe.parameters];
  // As in mergekit, filters of what models have see a tensor's name in the model: stacks number layers anew.
  const contextOf = (own: string) => tensorContext(own, layer, work.layers);
  const ofModels = found.slice(base ? 1 : 0);
  const settings: Settings = {
    global: parameterValues(method.global, levels, contextOf(target)),
    models: merged.map(({ parameters }, i) =>
      parameterValues(method.model, [parameters, ...levels], contextOf(ofModels[i]!.name)),
    ),
    seed: hash(`${seed} ${merge} ${target}`),
  };
  try {
    method.check?.(settings);
  } catch (error) {
    throw new RecipeError(`tensor ${target}: ${(error as Error).message}`);
  }
  return {
    name: target,
    dtype,
    shape,
    source: {
      kind: "merge",
      merge,
      method: recipe.method,
      settings,
      base: base && source,
      models: ofModels.map(({ source }) => source),
    },
  };
}

function findTensor(model: ModelTensors, name: string, target: string): ModelTensor {
  const found = model.tensors.get(name);
  if (found) return found;
  throw new SafetensorsError(model.path, `has no tensor "${name}", which is merged into "${target}"`, name);
}

/** Whole models have been compared before; layers of slices may differ by where they are. */
function checkAlike(tensors: readonly ModelTensor[], from: readonly { readonly model: ModelTensors }[]): void {
  const first = tensors[0]!;
  for (const [i, { name, dtype, shape }] of tensors.entries()) {
    const as = `"${first.name}" in ${from[0]!.model.path}`;
    if (`${shape}` !== `${first.shape}`) {
      const problem = `tensor "${name}" has shape [${shape}], expected [${first.shape}] as ${as}`;
      throw new SafetensorsError(from[i]!.model.path, problem + vocabularyHint(name, shape, first.shape), name);
    }
    if (isFloatDtype(dtype) !== isFloatDtype(first.dtype)) {
      throw new SafetensorsError(
        from[i]!.model.path,
        `tensor "${name}" is ${dtype}, and ${as} is ${first.dtype}`,
        name,
      );
    }
  }
}

function placeOf({ name, source }: ModelTensor): TensorPlace {
  if (source.kind === "tensor") return source.place;
  throw new SafetensorsError(undefined, `tensor "${name}" holds integers: only float tensors can be merged`, name);
}

/** A tensor's name with another number of its layer. */
export function withLayer(name: string, index: number): string {
  const { layer } = layerOf(name)!;
  return `${layer.replace(/\d+$/, String(index))}${name.slice(layer.length)}`;
}

/** 32 bits of a text (FNV-1a). */
function hash(text: string): number {
  let bits = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193);
  return bits >>> 0;
}
