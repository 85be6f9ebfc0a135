/** The JSON files of a model folder: reading them, and config.json for other weights. */
import { readFile, stat } from "node:fs/promises";
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

export const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => null))?.isFile() ?? false;

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

/** Weights that are written are in no bits but their dtype's. */
const withoutQuantisation = (text: string): string =>
  text.replace(/"quantization_config"\s*:\s*\{[^{}]*\}\s*,\s*|,\s*"quantization_config"\s*:\s*\{[^{}]*\}/g, "");

/**
 * The text of a config.json with every `dtype` and `torch_dtype` set to `dtype` ("bfloat16" and so on), nested ones
 * included; `torch_dtype`, which every version of transformers reads, is added where there is none. All else stays as it
 * is written: JSON.parse and stringify would turn 8.0 into 8, which transformers 5 refuses for some keys.
 */
export function configWithDtype(config: string, dtype: string): string {
  const text = withoutQuantisation(config);
  const entries = /("(?:torch_)?dtype"\s*:\s*)(?:"[^"]*"|null)/g;
  if (text.search(entries) >= 0) return text.replace(entries, `$1"${dtype}"`);
  return text.replace(/^\s*\{(\s*)/, `{$1"torch_dtype": "${dtype}",$1`);
}
