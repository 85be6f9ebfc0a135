/** adapter_config.json of PEFT: what a LoRA is multiplied by, and what would make adding it wrong. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ModelError } from "./errors.js";
import { type JsonObject, readJsonIfAny } from "./json.js";

/** Name of the file that holds an adapter's tensors. */
export const ADAPTER_NAME = "adapter_model.safetensors";

export interface AdapterConfig {
  readonly path: string;
  /** Folder or name of the model that the adapter was trained on; null where it does not say. */
  readonly base: string | null;
  /** Of the base, where that is a model of the hub; null is its branch main. */
  readonly baseRevision: string | null;
  /** Whether an embedding that is stored whole is the head of a model that ties them, too. */
  readonly isTied: boolean;
  readonly rank: number;
  readonly alpha: number;
  /** Rank-stabilised (arXiv 2312.03732): alpha is divided by the root of the rank. */
  readonly isRankStabilised: boolean;
  /** Other ranks and alphas, by expressions that match the end of a module's name. */
  readonly rankPattern: readonly Pattern[];
  readonly alphaPattern: readonly Pattern[];
}

interface Pattern {
  readonly expression: RegExp;
  readonly value: number;
}

/** Keys that say nothing more about the numbers than the tensors do. Any other must be off. */
const KNOWN = new Set(
  `peft_type task_type base_model_name_or_path revision inference_mode peft_version auto_mapping r lora_alpha use_rslora
  rank_pattern alpha_pattern target_modules exclude_modules modules_to_save bias lora_dropout init_lora_weights
  layers_to_transform layers_pattern loftq_config eva_config corda_config lora_ga_config megatron_core qalora_group_size
  runtime_config ensure_weight_tying modules_to_tie`.split(/\s+/),
);

/** Initialisations that leave the base as it is; the others take part of it away, which an adapter alone does not say. */
const PLAIN_STARTS: readonly unknown[] = [undefined, null, true, false, "gaussian", "orthogonal", "eva"];

export async function readAdapterConfig(dir: string): Promise<AdapterConfig> {
  const path = join(dir, "adapter_config.json");
  const config = await readJsonIfAny(path);
  if (config === null) throw new ModelError(dir, "has no adapter_config.json, expected the folder of a PEFT adapter");
  if (config.peft_type !== "LORA") {
    throw new ModelError(path, `"peft_type" is ${JSON.stringify(config.peft_type)}, expected "LORA"`);
  }
  for (const [key, value] of Object.entries(config)) {
    if (KNOWN.has(key) || isOff(value)) continue;
    throw new ModelError(path, `"${key}" is ${JSON.stringify(value)}, which is not supported`);
  }
  if (!PLAIN_STARTS.includes(config.init_lora_weights)) {
    const start = JSON.stringify(config.init_lora_weights);
    throw new ModelError(
      path,
      `"init_lora_weights" is ${start}, which changes the base: convert it to a plain LoRA first`,
    );
  }
  await checkFile(dir);
  return {
    path,
    base: textOrNull(config.base_model_name_or_path),
    baseRevision: textOrNull(config.revision),
    isTied: config.ensure_weight_tying === true,
    rank: positive(path, "r", config.r),
    alpha: positive(path, "lora_alpha", config.lora_alpha),
    isRankStabilised: config.use_rslora === true,
    rankPattern: patterns(path, "rank_pattern", config.rank_pattern),
    alphaPattern: patterns(path, "alpha_pattern", config.alpha_pattern),
  };
}

/** Rank of a module's matrices, and what B A is multiplied by. */
export function scaleOf(config: AdapterConfig, module: string): { readonly rank: number; readonly scale: number } {
  const find = (patterns: readonly Pattern[]) => patterns.find(({ expression }) => expression.test(module))?.value;
  const rank = find(config.rankPattern) ?? config.rank;
  const alpha = find(config.alphaPattern) ?? config.alpha;
  return { rank, scale: alpha / (config.isRankStabilised ? Math.sqrt(rank) : rank) };
}

const textOrNull = (value: unknown): string | null => (typeof value === "string" ? value : null);

const isOff = (value: unknown): boolean =>
  value === null || value === false || (typeof value === "object" && Object.keys(value).length === 0);

function positive(path: string, key: string, value: unknown): number {
  if (typeof value === "number" && value > 0) return value;
  throw new ModelError(path, `"${key}" is ${JSON.stringify(value)}, expected a number above 0`);
}

function patterns(path: string, key: string, value: unknown): Pattern[] {
  return Object.entries((value ?? {}) as JsonObject).map(([pattern, of]) => {
    try {
      return { expression: new RegExp(`^(?:.*\\.)?(?:${pattern})$`), value: positive(path, `${key}.${pattern}`, of) };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new ModelError(path, `"${key}" has ${JSON.stringify(pattern)}, expected a regular expression`, {
        cause: error,
      });
    }
  });
}

async function checkFile(dir: string): Promise<void> {
  const names = await readdir(dir);
  if (names.includes(ADAPTER_NAME)) return;
  const instead = names.includes("adapter_model.bin") ? "has adapter_model.bin" : "has no tensors";
  throw new ModelError(dir, `${instead}, expected ${ADAPTER_NAME}`);
}
