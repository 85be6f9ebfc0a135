// What a merge method is: plain functions on the same rows of every source, and sums over all rows that they need first.
import type { Granularity } from "./groups.js";
import type { PartRange } from "./parts.js";
import { kernelsFor } from "./simd/arena.js";
import { weightedSumInto } from "./simd/sums.js";
import { addProducts, noProducts } from "./task-vectors.js";

/** Consecutive whole rows of one tensor (parts of a row where the method allows it), the same of every source, as float32. */
export interface Part extends PartRange {
  /** The base model's elements; null where the recipe names none, or the method knows none. */
  readonly base: Float32Array | null;
  /** The models' elements, in the order of the recipe, the base not among them. One or more, all of one length. */
  readonly models: readonly Float32Array[];
}

/** What each pass so far has concluded. */
export type Known = readonly (readonly number[])[];

export type ProductsOf = "task vectors" | "sources";

/**
 * A reading of all parts before the merge proper. `measure` looks at one part; its results, all of one length, are added
 * up over the parts (in their order, in float64), and `conclude` turns the sums into the few numbers that later passes
 * and `combine` get.
 */
export interface Pass<Settings> {
  /** False where earlier passes make this one needless; it then concludes []. @default always */
  isNeeded?(known: Known, settings: Settings): boolean;
  /**
   * Whose dot products are summed, where it is these: rows of a Gram matrix, one after the other, of the task vectors (of the
   * models where there is no base) or of base and models as they are. Null where `measure` sums something else. @default null
   */
  products?(settings: Settings): ProductsOf | null;
  /** How many counts `measure` gives, where it gives counts: whole numbers, which are added as 32-bit integers. */
  counts?(settings: Settings, known: Known): number;
  /** The array may be used again for the next part. Counts, as 32-bit integers, must not exceed the elements of the part. */
  measure?(part: Part, settings: Settings, known: Known): Float64Array | Uint32Array;
  conclude(sums: Float64Array, settings: Settings, known: Known): readonly number[];
}

/** A value as a recipe holds it once filters, gradients and expressions have been applied to a tensor. */
export type ParameterValue = number | boolean | string;

/** One parameter of a method, as a recipe names it. Without `default` it must be given. */
export interface ParameterSpec<V extends ParameterValue = ParameterValue> {
  readonly type: "number" | "integer" | "boolean" | "choice";
  readonly default?: V;
  /** Range of a number, ends included. */
  readonly min?: number;
  readonly max?: number;
  /** Values of a choice. */
  readonly choices?: readonly string[];
  /** One line: what it does. */
  readonly description: string;
}

export type ParameterSpecs = Readonly<Record<string, ParameterSpec>>;

/** Typed values of parameters, as their specs declare them. */
export type Values<Specs extends ParameterSpecs> = { readonly [Name in keyof Specs]: ValueOf<Specs[Name]> };

type ValueOf<Spec extends ParameterSpec> = Spec["type"] extends "boolean"
  ? boolean
  : Spec["type"] extends "choice"
    ? Spec extends { readonly choices: readonly (infer Choice extends string)[] }
      ? Choice
      : never
    : number;

/** Parameters of one tensor: the values for the whole merge and those of each model, in the order of `Part.models`. */
export interface Settings {
  readonly global: Readonly<Record<string, ParameterValue>>;
  readonly models: readonly Readonly<Record<string, ParameterValue>>[];
  /** 32 bits that random numbers are drawn from: of the recipe's seed and the tensor's name. */
  readonly seed: number;
}

/** `Settings` whose values have the types of a method's specs. */
export interface SettingsOf<Global extends ParameterSpecs, Model extends ParameterSpecs> extends Settings {
  readonly global: Values<Global>;
  readonly models: readonly Values<Model>[];
}

export interface Method<S extends Settings = Settings> {
  /** One line: what it does, and the paper. */
  readonly description: string;
  readonly base: "required" | "optional" | "none";
  /** How many models may be merged, the base not counted. @default 1 or more */
  readonly minModels?: number;
  readonly maxModels?: number;
  readonly global: ParameterSpecs;
  readonly model: ParameterSpecs;
  /** Throws a RangeError for values that are fine one by one but not together. Of each tensor's settings, before any is read. */
  check?(settings: S): void;
  /** What its passes sum over. @default "tensor" */
  granularity?(settings: S): Granularity;
  readonly passes: readonly Pass<S>[];
  /** Whether passes or `combine` need whole rows; where not, long rows may be cut. @default false */
  readonly needsRows?: boolean;
  /**
   * What the sources (the base, if there is one, and then the models) are multiplied by, where the result is their sum;
   * null where it is not. @default null
   */
  weights?(settings: S, known: Known, hasBase: boolean): readonly number[] | null;
  /** Where there are no weights: writes the merged elements of a part to `out`, which has its length and is none of the sources. */
  combine?(part: Part, settings: S, known: Known, out: Float32Array): void;
}

/** The base, if there is one, and then the models. */
export const sourcesOf = ({ base, models }: Part): readonly Float32Array[] => (base ? [base, ...models] : models);

/** The sums of a pass over one part. The array may be used again for the next part. */
export function measurePart(
  { products, measure }: Pass<Settings>,
  part: Part,
  settings: Settings,
  known: Known,
): Float64Array | Uint32Array {
  const of = products?.(settings) ?? null;
  if (of === null) return measure!(part, settings, known);
  const vectors = of === "sources" ? sourcesOf(part) : part.models;
  const sums = noProducts(vectors.length);
  addProducts(sums, of === "sources" ? null : part.base, vectors);
  return Float64Array.from(sums.flat());
}

/** Writes the merged elements of a part to `out`, which has its length and is none of the sources. */
export function combinePart(method: Method, part: Part, settings: Settings, known: Known, out: Float32Array): void {
  const weights = method.weights?.(settings, known, part.base !== null) ?? null;
  if (weights === null) method.combine!(part, settings, known, out);
  else weightedSumInto(out, sourcesOf(part), weights);
}

/** A method whose passes and `combine` see its parameters by the types that `global` and `model` declare. */
export const defineMethod = <const Global extends ParameterSpecs, const Model extends ParameterSpecs>(
  method: Method<SettingsOf<Global, Model>> & { readonly global: Global; readonly model: Model },
): Method => method;

/** Adds what a pass gives of a part, or of some, to the sums so far, in place. */
export function addSums(sums: Float64Array, next: Float64Array): void {
  for (let i = 0; i < sums.length; i++) sums[i]! += next[i]!;
}

/** As `addSums`, of counts. */
export function addCounts(sums: Uint32Array, next: Uint32Array): void {
  const kernels = kernelsFor(sums, next);
  const whole = kernels === undefined ? 0 : sums.length - (sums.length % 4);
  kernels?.addCounts(next.byteOffset, whole, sums.byteOffset);
  for (let i = whole; i < sums.length; i++) sums[i]! += next[i]!;
}
