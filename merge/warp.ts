// The merges of WARP as functions on model folders: SLERP and LITI of runs that were trained from one init.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type CheckpointTensor, type FloatDtype, isFloatDtype, type TensorSpec } from "safetensors-ts";
import { stringify } from "yaml";
import { configWithDtype } from "../model/json.js";
import { copySideFiles } from "../model/save.js";
import { mergeInto } from "./engine.js";
import { describeGeometry, type GroupStatistics, type Weigh } from "./geometry.js";
import { layerOf } from "./groups.js";
import { type Inputs, withInputs } from "./inputs.js";
import { checkEta } from "./liti.js";
import type { MethodName } from "./methods.js";
import { mergeCard } from "./model-card.js";
import {
  checkOptions,
  type EmaOptions,
  type Eta,
  type LitiOptions,
  type MergeDtype,
  type MergeOptions,
  readConfigText,
} from "./options.js";
import type { MergeSource, OutputTensor, Plan, TensorSource } from "./plan.js";
import { lerpWeights, slerpWeights } from "./slerp.js";

export type { GroupStatistics } from "./geometry.js";
export type { EmaOptions, Eta, LitiOptions, MergeDtype, MergeOptions } from "./options.js";

/** What a tensor is made by, where LITI goes `eta` of the way. */
type Merge = (eta: number) => Pick<MergeSource, "method" | "settings">;

/** SLERP of the runs' task vectors, then LITI with `eta` (1 is SLERP alone): one pass, one rounding to `dtype`. */
export function slerpCheckpoints(options: MergeOptions): Promise<GroupStatistics[]> {
  const { granularity, runs } = options;
  const merge = (eta: number) => bySettings("warp", { granularity, eta }, runs, {});
  return mergeRuns(options, merge, (products) => slerpWeights(products).weights);
}

/** As `slerpCheckpoints`, with the plain average in the place of SLERP. */
export function lerpCheckpoints(options: MergeOptions): Promise<GroupStatistics[]> {
  const { runs } = options;
  const global = { normalize: false, lambda: 1, rescale: false, int8_mask: false };
  const merge = (eta: number) => bySettings("task_arithmetic", global, runs, { weight: eta / runs.length });
  return mergeRuns(options, merge, (products) => lerpWeights(products.length));
}

/** init + eta (model - init). */
export function litiCheckpoints({ model, ...options }: LitiOptions): Promise<GroupStatistics[]> {
  return slerpCheckpoints({ ...options, runs: [model], granularity: "layer" });
}

/**
 * Exponential moving average of checkpoints in their order: the first, then (1 - mu) of it and mu of the next, and so on.
 * Config and tokenizer are the last one's.
 */
export async function emaCheckpoints({ models, mu, dtype, out, overwrite }: EmaOptions): Promise<void> {
  if (!(mu >= 0 && mu <= 1)) throw new RangeError(`mu should be a number from 0 to 1, got ${mu}`);
  const [last, ...earlier] = [...models].reverse() as [string, ...string[]];
  await checkOptions({ init: last, runs: earlier, granularity: "tensor", eta: 1, dtype, out, overwrite });
  const config = await readConfigText(last);
  const merge = () => bySettings("ema", { mu }, models, {});
  const plan = await withInputs(last, earlier, async (inputs) => planRuns(inputs, { dtype, eta: 1 }, merge));
  const tensors = plan.tensors.map(({ source, ...tensor }): OutputTensor => {
    if (source.kind !== "merge") return { ...tensor, source };
    return { ...tensor, source: { ...source, base: null, models: [...source.models.slice().reverse(), source.base!] } };
  });
  await mergeInto({ ...plan, tensors }, { out, isDurable: true }, async (folder) => {
    await copySideFiles(last, folder);
    await writeFile(join(folder, "config.json"), configWithDtype(config, commonDtype(tensors)));
    await writeFile(join(folder, "README.md"), cardOf({ out, dtype, base: null, models }, merge()));
  });
}

const bySettings = (
  method: MethodName,
  global: MergeSource["settings"]["global"],
  runs: readonly string[],
  each: MergeSource["settings"]["global"],
) => ({ method, settings: { global, models: runs.map(() => each), seed: 0 } });

/** README.md, with the recipe of mergekit's kind that makes the same, where the settings are those of all tensors. */
function cardOf(
  {
    out,
    dtype,
    base,
    models,
  }: Pick<MergeOptions, "out" | "dtype"> & { base: string | null; models: readonly string[] },
  { method, settings }: Pick<MergeSource, "method"> & { settings: MergeSource["settings"] | null },
): string {
  const sources = [...(base === null ? [] : [base]), ...models];
  if (settings === null) return mergeCard(out, sources, [method], null);
  const recipe = {
    merge_method: method,
    ...(base === null ? {} : { base_model: base }),
    models: models.map((model, m) => ({ model, parameters: settings.models[m]! })),
    parameters: settings.global,
    ...(dtype === "input" ? {} : { out_dtype: dtype }),
  };
  return mergeCard(out, sources, [method], stringify(recipe, { lineWidth: 0 }));
}

async function mergeRuns(options: MergeOptions, merge: Merge, weigh: Weigh): Promise<GroupStatistics[]> {
  await checkOptions(options);
  const config = await readConfigText(options.init);
  const plan = await withInputs(options.init, options.runs, async (inputs) => planRuns(inputs, options, merge));
  let statistics: GroupStatistics[] = [];
  await mergeInto(plan, { out: options.out, geometry: true, isDurable: true }, async (folder, stored) => {
    await copySideFiles(options.init, folder);
    await writeFile(join(folder, "config.json"), configWithDtype(config, commonDtype(plan.tensors)));
    const { init: base, runs: models, eta } = options;
    // An eta of the layer's number is in no recipe's words.
    const merged = typeof eta === "number" ? merge(eta) : { ...merge(0), settings: null };
    await writeFile(join(folder, "README.md"), cardOf({ ...options, base, models }, merged));
    statistics = describeGeometry(plan, stored, options.granularity, weigh);
  });
  return statistics;
}

function planRuns({ init, runs }: Inputs, { dtype, eta }: Pick<MergeOptions, "dtype" | "eta">, merge: Merge): Plan {
  const files: string[] = [];
  const placeOf = (checkpoint: Inputs["init"], name: string): TensorSource => {
    const { path, position, dtype, shape } = checkpoint.info(name);
    const known = files.indexOf(path);
    const file = known < 0 ? files.push(path) - 1 : known;
    return { kind: "tensor", place: { file, position, dtype, shape } };
  };
  const etaOf = etaPerTensor(init.tensors, eta);
  const tensors = init.tensors.map(({ name, dtype: stored, shape }): OutputTensor => {
    const base = placeOf(init, name);
    const models = runs.map((run) => placeOf(run, name));
    if (!isFloatDtype(stored)) {
      return { name, dtype: stored, shape, source: base, sameAs: models.map(({ place }) => place) };
    }
    const source: MergeSource = { kind: "merge", merge: 0, ...merge(etaOf(name)), base, models };
    return { name, dtype: storedDtype(stored, dtype), shape, source };
  });
  return { files, tensors };
}

function etaPerTensor(tensors: readonly CheckpointTensor[], eta: Eta): (name: string) => number {
  const layers = tensors.reduce((count, { name }) => Math.max(count, (layerOf(name)?.index ?? -1) + 1), 0);
  const etaOf = (name: string) => (typeof eta === "number" ? eta : eta(layerOf(name)?.index ?? 0, layers));
  for (const { name } of tensors) checkEta(etaOf(name));
  return etaOf;
}

const STORED_AS = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const;
const CONFIG_NAMES = { F64: "float64", F32: "float32", BF16: "bfloat16", F16: "float16" } as const;

export const storedDtype = (dtype: FloatDtype, wanted: MergeDtype) => (wanted === "input" ? dtype : STORED_AS[wanted]);

/** The dtype of most float elements, as config.json names it. */
export function commonDtype(tensors: readonly TensorSpec[]): string {
  const elements = { F64: 0, F32: 0, BF16: 0, F16: 0 };
  for (const { dtype, shape } of tensors) {
    if (isFloatDtype(dtype)) elements[dtype] += shape.reduce((product, size) => product * size, 1);
  }
  const names = Object.keys(elements) as FloatDtype[];
  return CONFIG_NAMES[names.reduce((most, name) => (elements[name] > elements[most] ? name : most))];
}
