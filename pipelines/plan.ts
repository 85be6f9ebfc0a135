/** `heddle doctor --plan CONFIG`: what memory the stages of a config will take, before anything runs. */

import { readFile } from "node:fs/promises";
import { openCheckpoint } from "safetensors-ts";
import { type Device, readsBfloat16On } from "tfjs-jit/setup";
import { readYaml } from "../config/yaml-source.js";
import { readRows } from "../distill/data.js";
import { encodeConversations, encodePrompts, sizesOfConversations, sizesOfRows } from "../distill/encode.js";
import type { Sizes } from "../model/batch.js";
import type { ComputeDtype } from "../model/compute.js";
import { openModel, openWeights } from "../model/load.js";
import { isLayerMatrix, type LoraSettings, loraShapes } from "../model/lora.js";
import { EMBEDDING, parameterShapes } from "../model/shapes.js";
import { learning } from "../student/learning.js";
import { type Config, type ConfigCommand, loadConfig } from "./config.js";
import { isUrl, mapping } from "./config-checks.js";
import { UserError } from "./errors.js";
import { type MemoryPlan, type PlannedModel, planMemory, totalBytes } from "./memory-plan.js";
import { sharedBase } from "./shared-base.js";
import { alignColumns } from "./table.js";

export type StagePlan = {
  readonly stage: string;
  readonly bytes: MemoryPlan;
  readonly total: number;
  readonly advice: readonly string[];
};

/** A plan for each stage of the command that the config is for: that of its first section of warp, distill, rl, sft. */
export async function planConfig(path: string, set: readonly string[], device: Device): Promise<StagePlan[]> {
  const command = await commandOf(path, set);
  const config = await loadConfig(path, { set, command });
  const folder = await openModel(config.model);
  const stored = await storedBytes(folder.dir);
  const names = Object.keys(parameterShapes(folder.config));
  const rows = await readRows(config.train_data);
  const readsBfloat16 = readsBfloat16On(device);
  const teacher = await plannedTeacher(config, readsBfloat16);
  const reward = await plannedReward(config, readsBfloat16);
  const adapterShapes = (lora: LoraSettings | null) => (lora === null ? {} : loraShapes(folder.config, lora));
  const plans: StagePlan[] = [];
  for (const phase of command === "warp" ? (["distill", "rl"] as const) : [command]) {
    const settings = config[phase];
    if (settings === undefined) continue;
    const { max_new_tokens: maxNewTokens, gradient_accumulation_steps: parts } = settings;
    const { system, allow_control_tokens: allowControlTokens } = config;
    const encoded = await encodePrompts(folder, rows, { system, allowControlTokens, maxNewTokens });
    const answered = phase === "sft" ? await encodeConversations(folder, encoded, maxNewTokens) : null;
    const batch = "prompts" in settings ? settings.prompts : settings.batch_size;
    const samples = "samples" in settings ? settings.samples : 1;
    const sizes = (of: number): Sizes =>
      answered
        ? sizesOfConversations(answered, { rows: of, maxNewTokens })
        : sizesOfRows(encoded, { samples, maxNewTokens, rows: of });
    const learns = learning(settings, names);
    // What a stage hands on within a run of WARP is float32.
    const isFirst = phase !== "rl" || config.warp === undefined;
    const bytesOf = (name: string) =>
      learns(name) ? 4 : (quantisedBytes(config, name) ?? (isFirst ? stored(name) : 4));
    const bytes = planMemory({
      phase,
      student: { config: folder.config, learns, adapter: adapterShapes(settings.lora), bytesOf },
      teacher:
        teacher !== null && "beta" in settings
          ? { ...teacher, isShared: (await sharedBase(config.teacher, config.model, settings.lora)) !== null }
          : null,
      reward: phase === "rl" ? reward : null,
      sizes: sizes(batch),
      part: sizes(batch / parts),
      isInLoops: settings.gradient_checkpointing || names.some((name) => bytesOf(name) < 4),
      device,
      readsBfloat16,
    });
    plans.push({
      stage: phase,
      bytes,
      total: totalBytes(bytes),
      advice: adviceFor(phase, bytes, settings, batch / parts),
    });
  }
  return plans;
}

const COMMANDS = ["warp", "distill", "rl", "sft"] as const;

/** The command that a config is for, by its sections. */
async function commandOf(path: string, set: readonly string[]): Promise<ConfigCommand> {
  const value = mapping(readYaml(path, await readFile(path, "utf8"), set).value);
  const command = COMMANDS.find((section) => value[section] !== undefined);
  if (command === undefined)
    throw new UserError(
      `${path}: expected a section ${COMMANDS.join(", ")}, got ${Object.keys(value).join(", ") || "nothing"}`,
    );
  return command;
}

/** Bytes of an element of what load_in_4bit or load_in_8bit quantises (quantisedIn of model/weights.ts), else null. */
function quantisedBytes({ load_in_4bit, load_in_8bit }: Config, tensor: string): number | null {
  if (!(load_in_4bit || load_in_8bit) || !(tensor === EMBEDDING || isLayerMatrix(tensor))) return null;
  return load_in_4bit && tensor !== EMBEDDING ? 0.516 : 1;
}

/** Bytes of an element of each tensor as "stored" keeps it. */
async function storedBytes(dir: string): Promise<(tensor: string) => number> {
  const checkpoint = await openCheckpoint(dir);
  await checkpoint.close();
  const halves = new Set(checkpoint.tensors.filter(({ dtype }) => dtype === "BF16").map(({ name }) => name));
  return (tensor) => (halves.has(tensor) ? 2 : 4);
}

const plannedTeacher = async ({ teacher, teacher_dtype }: Config, reads: boolean): Promise<PlannedModel | null> =>
  teacher === null || isUrl(teacher) ? null : plannedModel(teacher, teacher_dtype, reads);

const plannedReward = async ({ rl }: Config, reads: boolean): Promise<PlannedModel | null> =>
  rl === undefined || rl.reward === "exact_match" ? null : plannedModel(rl.reward.model, rl.reward.dtype, reads);

/** A model that learns nothing (frozenStorage of model/loaded.ts). */
async function plannedModel(folder: string, dtype: ComputeDtype, readsBfloat16: boolean): Promise<PlannedModel> {
  const { config, dir } = await openWeights(folder);
  if (dtype === "bfloat16") return { config, bytesOf: () => 2 };
  return { config, bytesOf: readsBfloat16 ? await storedBytes(dir) : () => 4 };
}

/** What to set lower, by what takes most. */
function adviceFor(
  phase: Exclude<ConfigCommand, "warp">,
  { weights, teacher, reward, optimiser, anchor, gradients, activations, loss, cache }: MemoryPlan,
  settings: { readonly gradient_checkpointing: boolean; readonly max_new_tokens: number },
  rows: number,
): string[] {
  const advice: [bytes: number, text: string][] = [];
  if (rows > 1)
    advice.push([activations + loss, `raise ${phase}.gradient_accumulation_steps: a part has ${rows} rows`]);
  if (!settings.gradient_checkpointing) advice.push([activations, "set gradient_checkpointing: true"]);
  advice.push([optimiser + anchor + gradients + weights, "train fewer tensors: trainable"]);
  if (teacher > 0) advice.push([teacher, "set teacher_dtype: bfloat16, or serve the teacher elsewhere (heddle serve)"]);
  if (reward > 0) advice.push([reward, "set dtype: bfloat16 in rl.reward"]);
  advice.push([cache, `lower ${phase === "rl" ? "rl.prompts, rl.samples" : `${phase}.batch_size`} or max_new_tokens`]);
  return advice.sort(([a], [b]) => b - a).map(([, text]) => text);
}

const LABELS: Readonly<Record<keyof MemoryPlan, string>> = {
  runtime: "TensorFlow, Node, programs",
  weights: "weights of the model",
  teacher: "weights of the teacher",
  reward: "weights of the reward model",
  optimiser: "optimiser",
  anchor: "moving average",
  gradients: "gradients",
  activations: "activations",
  loss: "logits of the loss",
  cache: "keys and values (sampling)",
};

/** The plans for people. @throws UserError where a stage needs more than `available` bytes */
export function describePlans(plans: readonly StagePlan[], available: number): string {
  const table = plans.map(({ stage, bytes, total }) => {
    const lines = (Object.keys(LABELS) as (keyof MemoryPlan)[])
      .filter((key) => bytes[key] > 0)
      .map((key) => [`  ${LABELS[key]}`, size(bytes[key])]);
    return `${stage}\n${alignColumns([...lines, ["  at most, together", size(total)]])}`;
  });
  const tooMuch = plans.find(({ total }) => total > available);
  const text = `${table.join("\n")}\nthis device has ${size(available)}\n`;
  if (tooMuch === undefined) return text;
  throw new UserError(
    `${text}${tooMuch.stage} needs ${size(tooMuch.total)}, expected at most ${size(available)}. What would help most: ` +
      tooMuch.advice.slice(0, 3).join("; "),
  );
}

const size = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${Math.ceil(bytes / 1e6)} MB`;
