/** Adapters in PEFT's format (LoRA, arXiv 2106.09685): what they add to which weights. Imports no TensorFlow. */
import { join } from "node:path";
import { type FileTensor, isFloatDtype, openSafetensors, SafetensorsError } from "safetensors-ts";
import { ADAPTER_NAME, type AdapterConfig, readAdapterConfig, scaleOf } from "./adapter-config.js";
import { ModelError } from "./errors.js";

export interface Adapter {
  /** Path of the folder. */
  readonly path: string;
  readonly config: AdapterConfig;
  /** Path of the file that holds the tensors. */
  readonly file: string;
  /** What is added, by the name of the model's weight. */
  readonly updates: ReadonlyMap<string, LoraUpdate>;
  /** Tensors that take the place of the model's, by its names. */
  readonly replaced: ReadonlyMap<string, FileTensor>;
  /** Whether it makes a classifier of a language model: `replaced` has a head that the base has not. */
  readonly addsHead: boolean;
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
  const file = await openSafetensors(join(path, ADAPTER_NAME));
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
  return { path, config, file: file.path, updates, replaced, addsHead: false };
}

/** What PEFT puts before the names of the model's tensors. */
export const PREFIX = "base_model.model.";

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
  throw new SafetensorsError(path, `tensor "${name}" is not supported, expected ${expected}`, name);
}

function checkedScale(config: AdapterConfig, module: string, a: FileTensor, b: FileTensor): number {
  const { rank, scale } = scaleOf(config, module);
  if (a.shape.length === 2 && b.shape.length === 2 && a.shape[0] === rank && b.shape[1] === rank) return scale;
  const problem = `"${a.name}" has shape [${a.shape}] and "${b.name}" shape [${b.shape}], expected [${rank},columns] and [rows,${rank}]`;
  throw new SafetensorsError(a.path, problem, a.name);
}

/**
 * Throws unless the model has a tensor of the right shape for each of the adapter's: another base would leave some out.
 * `shapeOf` gives undefined for a tensor that the model has not.
 */
export function checkAdapterFits(
  { file, updates, replaced }: Adapter,
  model: string,
  shapeOf: (name: string) => readonly number[] | undefined,
): void {
  for (const name of [...updates.keys(), ...replaced.keys()]) {
    const shape = shapeOf(name);
    if (shape === undefined) {
      throw new ModelError(
        file,
        `is for a model with a tensor "${name}", which ${model} has not: an adapter for another base?`,
      );
    }
    const whole = replaced.get(name);
    if (whole && `${whole.shape}` !== `${shape}`) {
      const problem = `"${whole.name}" has shape [${whole.shape}], expected [${shape}] as the model's "${name}"`;
      throw new SafetensorsError(file, problem, whole.name);
    }
    const update = updates.get(name);
    if (!update) continue;
    const { a, b } = update;
    if (`${[b.shape[0], a.shape[1]]}` !== `${shape}`) {
      const problem = `"${b.name}" of shape [${b.shape}] times "${a.name}" of shape [${a.shape}] does not fit "${name}" of shape [${shape}]`;
      throw new SafetensorsError(file, problem, a.name);
    }
  }
}
