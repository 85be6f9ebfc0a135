// Merges checkpoint folders into a checkpoint folder, tensor by tensor in chunks: memory holds megabytes, never a model.
// Two passes over each group of tensors: dot products of the task vectors first, then their weighted sum.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type CheckpointTensor,
  type FloatDtype,
  fromFloat32,
  isFloatDtype,
  type StreamedTensor,
  type TensorSpec,
  toFloat32,
  writeCheckpoint,
} from "safetensors-ts";
import { configWithDtype } from "../model/json.js";
import { copySideFiles, replaceFolder } from "../model/save.js";
import { layerOf } from "./groups.js";
import { checkFinite, copyChunks, type Inputs, readChunks, withInputs } from "./inputs.js";
import { checkEta } from "./liti.js";
import { type GroupStatistics, type Measure, measureGroups, type Weigh } from "./measure.js";
import {
  checkOptions,
  type Eta,
  type LitiOptions,
  type MergeDtype,
  type MergeOptions,
  readConfigText,
} from "./options.js";
import { lerpWeights, slerpWeights } from "./slerp.js";
import { addTaskVectors } from "./task-vectors.js";

export type { GroupStatistics } from "./measure.js";
export type { Eta, LitiOptions, MergeDtype, MergeOptions } from "./options.js";

/** SLERP of the runs' task vectors, then LITI with `eta` (1 is SLERP alone): one pass, one rounding to `dtype`. */
export function slerpCheckpoints(options: MergeOptions): Promise<GroupStatistics[]> {
  return mergeCheckpoints(options, (products) => slerpWeights(products).weights);
}

/** As `slerpCheckpoints`, with the plain average in the place of SLERP. */
export function lerpCheckpoints(options: MergeOptions): Promise<GroupStatistics[]> {
  return mergeCheckpoints(options, (products) => lerpWeights(products.length));
}

/** init + eta (model - init). */
export function litiCheckpoints({ model, ...options }: LitiOptions): Promise<GroupStatistics[]> {
  return mergeCheckpoints({ ...options, runs: [model], granularity: "layer" }, () => [1]);
}

async function mergeCheckpoints(options: MergeOptions, weigh: Weigh): Promise<GroupStatistics[]> {
  await checkOptions(options);
  const config = await readConfigText(options.init);
  return withInputs(options.init, options.runs, async (inputs) => {
    const floats = inputs.init.tensors.filter(({ dtype }) => isFloatDtype(dtype));
    const measure = measureGroups(inputs, floats, options.granularity, weigh);
    const etaOf = etaPerTensor(floats, options.eta);
    const merged = inputs.init.tensors.map(({ name, dtype, shape }): StreamedTensor => {
      if (!isFloatDtype(dtype)) return { name, dtype, shape, chunks: () => copyChunks(inputs, name) };
      const stored = storedDtype(dtype, options.dtype);
      const chunks = () => mergeChunks(inputs, measure, name, etaOf(name), stored);
      return { name, dtype: stored, shape, chunks };
    });
    await replaceFolder(options.out, async (partial) => {
      await writeCheckpoint(partial, merged);
      await copySideFiles(options.init, partial);
      await writeFile(join(partial, "config.json"), configWithDtype(config, commonDtype(merged)));
    });
    return measure.statistics();
  });
}

/** The second pass: init + eta times the weighted sum of the task vectors. */
async function* mergeChunks(
  inputs: Inputs,
  measure: Measure,
  name: string,
  eta: number,
  dtype: FloatDtype,
): AsyncGenerator<Uint8Array> {
  const weights = (await measure.weightsFor(name)).map((weight) => weight * eta);
  for await (const { start, init, runs } of readChunks(inputs, name)) {
    const bytes = fromFloat32(addTaskVectors(init, runs, weights), dtype);
    // float16 ends at 65504: what fits in the inputs may not fit here.
    if (dtype === "F16") checkFinite(toFloat32(bytes, dtype), "result as float16", name, start);
    yield bytes;
  }
}

function etaPerTensor(tensors: readonly CheckpointTensor[], eta: Eta): (name: string) => number {
  const layers = tensors.reduce((count, { name }) => Math.max(count, (layerOf(name)?.index ?? -1) + 1), 0);
  const etaOf = (name: string) => (typeof eta === "number" ? eta : eta(layerOf(name)?.index ?? 0, layers));
  for (const { name } of tensors) checkEta(etaOf(name));
  return etaOf;
}

const STORED_AS = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const;
const CONFIG_NAMES = { F64: "float64", F32: "float32", BF16: "bfloat16", F16: "float16" } as const;

const storedDtype = (dtype: FloatDtype, wanted: MergeDtype) => (wanted === "input" ? dtype : STORED_AS[wanted]);

/** The dtype of most float elements, as config.json names it. */
function commonDtype(tensors: readonly TensorSpec[]): string {
  const elements = { F64: 0, F32: 0, BF16: 0, F16: 0 };
  for (const { dtype, shape } of tensors) {
    if (isFloatDtype(dtype)) elements[dtype] += shape.reduce((product, size) => product * size, 1);
  }
  const names = Object.keys(elements) as FloatDtype[];
  return CONFIG_NAMES[names.reduce((most, name) => (elements[name] > elements[most] ? name : most))];
}
