/** The JSON files of a model folder: reading them, and writing config.json so that transformers takes it. */
import { readFile } from "node:fs/promises";
import { ModelError } from "./errors.js";

export type JsonObject = Readonly<Record<string, unknown>>;

/** Number formats of weights, as config.json names them. */
export const DTYPES = ["float32", "bfloat16", "float16"] as const;
export type Dtype = (typeof DTYPES)[number];

/** The text of a file, or null where there is none. */
export async function readTextIfAny(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** The object that a JSON file holds, or null where there is no file. */
export async function readJsonIfAny(path: string): Promise<JsonObject | null> {
  const text = await readTextIfAny(path);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(path, `not valid JSON (${(error as Error).message})`, { cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ModelError(path, `holds ${JSON.stringify(value).slice(0, 60)}, expected a JSON object`);
  }
  return value as JsonObject;
}

const FLOAT_KEYS =
  /^(\s*"(?:attention_dropout|attn_logit_softcapping|final_logit_softcapping|initializer_range|rms_norm_eps|rope_theta|rope_local_base_freq)": -?\d+)(,?)$/gm;

/**
 * The text of a config.json for weights of `dtype`.
 * JavaScript prints 30.0 as 30, which transformers 5 refuses where it declares a float: those keys get their point back.
 */
export function configText(config: JsonObject, dtype: Dtype): string {
  const named = "dtype" in config || "torch_dtype" in config ? {} : { torch_dtype: dtype };
  const set = Object.entries(config).map(([key, value]) => [key, /^(torch_)?dtype$/.test(key) ? dtype : value]);
  return `${JSON.stringify({ ...Object.fromEntries(set), ...named }, null, 2).replace(FLOAT_KEYS, "$1.0$2")}\n`;
}
