// Typed readers of a GGUF file's metadata: the checked value, the default where the key is absent, or a ModelError.
import { ModelError } from "../model/errors.js";
import type { GgufFile, MetadataValue } from "./gguf-header.js";

export type MetadataReader = ReturnType<typeof metadataReader>;

export function metadataReader({ path, metadata }: Pick<GgufFile, "path" | "metadata">) {
  const reader =
    <T extends MetadataValue>(isValid: (value: MetadataValue) => value is T, expected: string) =>
    <Fallback extends T | null = never>(key: string, fallback?: Fallback): T | Fallback => {
      const value = metadata.get(key);
      if (value === undefined && fallback !== undefined) return fallback;
      if (value === undefined) throw new ModelError(path, `has no metadata "${key}", expected ${expected}`);
      if (isValid(value)) return value;
      throw new ModelError(path, `metadata "${key}" is ${JSON.stringify(value).slice(0, 60)}, expected ${expected}`);
    };
  return {
    path,
    isList: (key: string) => Array.isArray(metadata.get(key)),
    string: reader(isString, "a string"),
    flag: reader(isFlag, "true or false"),
    /** Token ids and counts: 0 or more. */
    id: reader(isId, "an integer, 0 or more"),
    integer: reader(isCount, "a positive integer"),
    number: reader(isPositive, "a positive number"),
    strings: reader(isListOf(isString), "a list of strings"),
    numbers: reader(isListOf(isNumber), "a list of numbers"),
    flags: reader(isListOf(isFlag), "a list of true and false"),
  };
}

const isString = (value: MetadataValue) => typeof value === "string";
const isFlag = (value: MetadataValue) => typeof value === "boolean";
const isNumber = (value: MetadataValue) => typeof value === "number";
const isId = (value: MetadataValue): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isCount = (value: MetadataValue): value is number => isId(value) && value > 0;
const isPositive = (value: MetadataValue): value is number => isNumber(value) && value > 0;
const isListOf =
  <T extends MetadataValue>(isValid: (value: MetadataValue) => value is T) =>
  (value: MetadataValue): value is readonly T[] =>
    Array.isArray(value) && value.every(isValid);
