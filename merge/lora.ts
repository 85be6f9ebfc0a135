// Adapters in PEFT's format (LoRA, arXiv 2106.09685) as sources of a merge.
import { join } from "node:path";
import { type FileTensor, isFloatDtype, openSafetensors, SafetensorsError } from "safetensors-ts";
import { ModelError } from "../model/errors.js";
import { type AdapterConfig, readAdapterConfig, scaleOf } from "./lora-config.js";
import type { Source, TensorPlace } from "./plan.js";

export interface Adapter {
  /** Path of the folder. */
  readonly path: string;
  /** Path of the file that holds the tensors. */
  readonly file: string;
  /** What is added, by the name of the model's weight. */
  readonly updates: ReadonlyMap<string, LoraUpdate>;
  /** Tensors that take the place of the model's, by its names. */
  readonly replaced: ReadonlyMap<string, FileTensor>;
}

/** scale B A: A is [rank, columns], B [rows, rank]. */
export interface LoraUpdate {
  readonly a: FileTensor;
  readonly b: FileTensor;
  readonly scale: number;
}

/** Reads and checks adapter_config.json and the header of adapter_model.safetensors. */
export async function openAdapter(path: string): Promise<Adapter> {
  const config = await readAdapterConfig(path);
  const file = await openSafetensors(join(path, "adapter_model.safetensors"));
  await file.close();
  const matrices = new Map<string, { a?: FileTensor; b?: FileTensor }>();
  const replaced = new Map<string, FileTensor>();
  for (const tensor of file.tensors) {
    const { module, part } = parseName(file.path, tensor);
    if (part !== "A" && part !== "B") replaced.set(`${module}.${part}`, tensor);
    else matrices.set(module, { ...matrices.get(module), [part === "A" ? "a" : "b"]: tensor });
  }
  const updates = new Map<string, LoraUpdate>();
  for (const [module, { a, b }] of matrices) {
    if (!a || !b) {
      const [has, lacks] = a ? ["A", "B"] : ["B", "A"];
      throw new ModelError(file.path, `has lora_${has} of "${module}", and no lora_${lacks}`);
    }
    updates.set(`${module}.weight`, { a, b, scale: checkedScale(config, module, a, b) });
  }
  return { path, file: file.path, updates, replaced };
}

const PREFIX = "base_model.model.";

/** "base_model.model.MODULE.lora_A.weight", or "base_model.model.MODULE.weight" of a module that is saved whole. */
function parseName(path: string, { name, dtype }: FileTensor): { module: string; part: string } {
  if (!isFloatDtype(dtype)) throw new SafetensorsError(path, `tensor "${name}" is ${dtype}, expected floats`, name);
  const own = name.startsWith(PREFIX) ? name.slice(PREFIX.length) : null;
  const lora = own && /^(.+)\.lora_([AB])\.weight$/.exec(own);
  if (lora) return { module: lora[1]!, part: lora[2]! };
  // Layers that are wrapped keep their own tensors, such as trained biases, within base_layer.
  const whole = own && /^(.+?)(?:\.base_layer|\.modules_to_save)?\.(weight|bias)$/.exec(own);
  if (whole && !/\blora_/.test(own)) return { module: whole[1]!, part: whole[2]! };
  const expected = `${PREFIX}MODULE.lora_A.weight, .lora_B.weight or .weight`;
  throw new SafetensorsError(path, `tensor "${name}" cannot be merged, expected ${expected}`, name);
}

function checkedScale(config: AdapterConfig, module: string, a: FileTensor, b: FileTensor): number {
  const { rank, scale } = scaleOf(config, module);
  if (a.shape.length === 2 && b.shape.length === 2 && a.shape[0] === rank && b.shape[1] === rank) return scale;
  const problem = `"${a.name}" has shape [${a.shape}] and "${b.name}" shape [${b.shape}], expected [${rank},columns] and [rows,${rank}]`;
  throw new SafetensorsError(a.path, problem, a.name);
}

/** A tensor of the model with the adapter on it. `fileIndex` is that of `adapter.file` in the plan's files. */
export function withAdapter(
  source: Source,
  name: string,
  shape: readonly number[],
  { updates, replaced }: Adapter,
  fileIndex: number,
): Source {
  const placeOf = ({ position, dtype, shape }: FileTensor): TensorPlace => ({
    file: fileIndex,
    position,
    dtype,
    shape,
  });
  const whole = replaced.get(name);
  if (whole && `${whole.shape}` !== `${shape}`) {
    const problem = `"${whole.name}" has shape [${whole.shape}], expected [${shape}] as the model's "${name}"`;
    throw new SafetensorsError(whole.path, problem, whole.name);
  }
  const update = updates.get(name);
  const of: Source = whole ? { kind: "tensor", place: placeOf(whole) } : source;
  if (!update) return of;
  const { a, b, scale } = update;
  if (`${[b.shape[0], a.shape[1]]}` !== `${shape}`) {
    const problem = `"${b.name}" of shape [${b.shape}] times "${a.name}" of shape [${a.shape}] does not fit "${name}" of shape [${shape}]`;
    throw new SafetensorsError(a.path, problem, a.name);
  }
  return { kind: "lora", of, a: placeOf(a), b: placeOf(b), scale };
}

/** Throws unless the model has a tensor for each of the adapter's; another base would leave some out. */
export function checkAdapterFits(
  { file, updates, replaced }: Adapter,
  model: string,
  names: Pick<ReadonlySet<string>, "has">,
): void {
  for (const name of [...updates.keys(), ...replaced.keys()]) {
    if (names.has(name)) continue;
    throw new ModelError(
      file,
      `is for a model with a tensor "${name}", which ${model} has not: an adapter for another base?`,
    );
  }
}

/**
 * out += scale B A, for rows `firstRow` and on of B: `out` holds whole rows of `columns`, A is [rank, columns], B [rows, rank].
 * Sums are float64, rounded once.
 */
export function addLoraRows(
  out: Float32Array,
  firstRow: number,
  a: Float32Array,
  b: Float32Array,
  columns: number,
  rank: number,
  scale: number,
): void {
  const sum = new Float64Array(columns);
  for (let start = 0, row = firstRow; start < out.length; start += columns, row++) {
    for (let i = 0; i < columns; i++) sum[i] = out[start + i]!;
    let r = 0;
    // Four rows of A at a time: the sums are then read and written a quarter as often.
    for (; r + 4 <= rank; r += 4) {
      const at = row * rank + r;
      const [w0, w1, w2, w3] = [scale * b[at]!, scale * b[at + 1]!, scale * b[at + 2]!, scale * b[at + 3]!];
      const a0 = r * columns;
      const [a1, a2, a3] = [a0 + columns, a0 + 2 * columns, a0 + 3 * columns];
      for (let i = 0; i < columns; i++) {
        sum[i]! += w0 * a[a0 + i]! + w1 * a[a1 + i]! + (w2 * a[a2 + i]! + w3 * a[a3 + i]!);
      }
    }
    for (; r < rank; r++) {
      const weight = scale * b[row * rank + r]!;
      for (let i = 0; i < columns; i++) sum[i]! += weight * a[r * columns + i]!;
    }
    for (let i = 0; i < columns; i++) out[start + i] = sum[i]!;
  }
}
