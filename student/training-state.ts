/**
 * Training state on disk: what a run needs to go on as if it had never stopped.
 *
 *     DIR/checkpoint-STEP/parameters.safetensors, m.safetensors, v.safetensors, extra.safetensors    float32, bit for bit
 *     DIR/checkpoint-STEP/state.json                                                                 step and meta
 *
 * A folder of that name is whole at every instant: it is written as `checkpoint-STEP.partial` and renamed, and renamed back before it is
 * removed. What a killed process left behind as `.partial` is ignored by the next load and removed by the next save.
 */
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fromFloat32, openSafetensors, toFloat32, writeSafetensors } from "safetensors-ts";
import { isDiskFull } from "../model/disk.js";

export interface StateTensor {
  readonly shape: readonly number[];
  /** Read once, when it is written: a getter that copies from the device keeps one tensor in memory, not all. */
  readonly values: Float32Array;
}

export type StateTensors = Readonly<Record<string, StateTensor>>;

export interface TrainingState {
  /** Optimiser steps done. */
  readonly step: number;
  readonly parameters: StateTensors;
  /** AdamW's first moments, by parameter. */
  readonly m: StateTensors;
  /** AdamW's second moments, by parameter. */
  readonly v: StateTensors;
  /** Whatever else moves with the run, such as an EMA of the parameters; {} for nothing. */
  readonly extra: StateTensors;
  /** Any JSON value. */
  readonly meta: unknown;
}

const GROUPS = ["parameters", "m", "v", "extra"] as const;
const PARTIAL = ".partial";
/** The suffix of a folder that makes room for a new one of the same step; it is whole. */
const REPLACED = ".replaced";

/**
 * Saves the state of a step in `dir` (made if missing) and then removes the ones saved there before. Killed at any instant, it leaves
 * the old state or the new one. If it fails, the old one is kept.
 *
 * @throws Error if the disk is full.
 */
export async function saveTrainingState(dir: string, state: TrainingState): Promise<void> {
  await mkdir(dir, { recursive: true });
  await removePartial(dir);
  const old = await savedFolders(dir);
  const name = `checkpoint-${state.step}`;
  const folder = join(dir, name);
  try {
    await writeFolder(folder + PARTIAL, state);
  } catch (error) {
    await rm(folder + PARTIAL, { recursive: true, force: true });
    throw isDiskFull(error) ? diskFull(dir, state, old[0], error) : error;
  }

  if (old.includes(name)) {
    if (old.includes(name + REPLACED)) await discard(folder + REPLACED);
    await rename(folder, folder + REPLACED);
  }
  await rename(folder + PARTIAL, folder);
  await syncFolder(dir);
  for (const other of await savedFolders(dir)) if (other !== name) await discard(join(dir, other));
}

/** Removes what was saved in `dir`, once its result is. */
export async function removeTrainingState(dir: string): Promise<void> {
  await removePartial(dir);
  for (const name of await savedFolders(dir)) await discard(join(dir, name));
}

/**
 * The state of the highest step saved in `dir`, or undefined if there is none. `shapes` are those of the parameters to train.
 *
 * @throws RangeError if the saved parameters or moments differ from them in name or shape.
 * @throws SafetensorsError if a file is damaged.
 */
export async function loadTrainingState(
  dir: string,
  shapes: Readonly<Record<string, readonly number[]>>,
): Promise<TrainingState | undefined> {
  const name = (await savedFolders(dir))[0];
  if (name === undefined) return undefined;
  const folder = join(dir, name);
  const [parameters, m, v, extra] = [
    await readGroup(folder, "parameters", shapes),
    await readGroup(folder, "m", shapes),
    await readGroup(folder, "v", shapes),
    await readGroup(folder, "extra"),
  ];
  const { step, meta } = JSON.parse(await readFile(join(folder, "state.json"), "utf8")) as TrainingState;
  return { step, parameters, m, v, extra, meta };
}

async function writeFolder(folder: string, state: TrainingState): Promise<void> {
  await mkdir(folder);
  for (const group of GROUPS) {
    const tensors = Object.entries(state[group]).map(([name, tensor]) => ({
      name,
      dtype: "F32" as const,
      shape: tensor.shape,
      chunks: () => [fromFloat32(tensor.values, "F32")],
    }));
    await writeSafetensors(join(folder, `${group}.safetensors`), tensors);
  }
  const file = await open(join(folder, "state.json"), "wx");
  try {
    await file.writeFile(`${JSON.stringify({ step: state.step, meta: state.meta }, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await syncFolder(folder);
}

async function readGroup(
  folder: string,
  group: (typeof GROUPS)[number],
  shapes?: Readonly<Record<string, readonly number[]>>,
): Promise<StateTensors> {
  const file = await openSafetensors(join(folder, `${group}.safetensors`));
  try {
    if (shapes) checkShapes(file.path, Object.fromEntries(file.tensors.map((t) => [t.name, t.shape])), shapes);
    const tensors: Record<string, StateTensor> = {};
    for (const { name, dtype, shape } of file.tensors) {
      tensors[name] = { shape, values: toFloat32(await file.read(name), dtype) };
    }
    return tensors;
  } finally {
    await file.close();
  }
}

function checkShapes(
  path: string,
  saved: Readonly<Record<string, readonly number[]>>,
  model: Readonly<Record<string, readonly number[]>>,
): void {
  const problems: string[] = [];
  for (const name of new Set([...Object.keys(saved), ...Object.keys(model)])) {
    const [here, there] = [saved, model].map((shapes) => (shapes[name] ? `[${shapes[name]}]` : "missing"));
    if (here !== there) problems.push(`"${name}" is ${here} in the state, ${there} in the model`);
  }
  if (problems.length === 0) return;
  const more = problems.length > 3 ? `; and ${problems.length - 3} more` : "";
  throw new RangeError(
    `${path}: this training state is of another model, or other tensors of it learnt: ${problems.slice(0, 3).join("; ")}${more}. ` +
      "Resume with the model and the `trainable` it was saved with, or train into another folder",
  );
}

/** Whole checkpoints by name, the highest step first; of two of one step the one that was put in place last. */
async function savedFolders(dir: string): Promise<string[]> {
  const names = (await namesIn(dir)).filter((name) => /^checkpoint-\d+(\.replaced)?$/.test(name));
  const step = (name: string) => Number.parseInt(name.slice("checkpoint-".length), 10);
  return names.sort((a, b) => step(b) - step(a) || a.length - b.length);
}

async function removePartial(dir: string): Promise<void> {
  for (const name of await namesIn(dir)) {
    if (/^checkpoint-\d+(\.replaced)?\.partial$/.test(name)) await rm(join(dir, name), { recursive: true });
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Removes a whole checkpoint. Removal takes many steps: a name that counts as whole goes first. */
async function discard(folder: string): Promise<void> {
  await rename(folder, folder + PARTIAL);
  await rm(folder + PARTIAL, { recursive: true });
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function diskFull(dir: string, state: TrainingState, kept: string | undefined, cause: unknown): Error {
  const tensors = GROUPS.flatMap((group) => Object.values(state[group]));
  const bytes = tensors.reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
  return new Error(
    `${dir}: the disk is full: the training state of step ${state.step} needs ${bytes} bytes. ` +
      `${kept === undefined ? "No earlier one exists" : `The earlier ${kept} is kept`}. Free some space and start again`,
    { cause },
  );
}
