/** Readers of config.json's keys, which families of models share: checked values, and errors that name the key. */
import { ModelError } from "./errors.js";
import { DTYPES, type Dtype, type JsonObject } from "./json.js";

export const LAYER_TYPES = ["sliding_attention", "full_attention"] as const;
export type LayerType = (typeof LAYER_TYPES)[number];

/** Of each type of layer. */
export type ByType<T> = Readonly<Record<LayerType, T>>;

export const everyType = <T>(value: T): ByType<T> => ({ sliding_attention: value, full_attention: value });

/** Rotary positions: the frequencies (theta^(-2i/H)) / factor, which is linear scaling (arXiv 2306.15595); 1 is none. */
export type Rope = { readonly theta: number; readonly factor: number };

export const ID_OR_LIST = "a token id or a list of token ids";

/** Token ids given as one number, as a list or as null; undefined for anything else. */
export function idList(value: unknown): number[] | undefined {
  const list = value === null ? [] : Array.isArray(value) ? value : [value];
  return list.every(isId) ? list : undefined;
}

const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isPositive = (value: unknown): value is number => typeof value === "number" && value > 0;
const isPositiveInteger = (value: unknown): value is number => isId(value) && value > 0;
export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const orNull =
  <T>(isValid: (value: unknown) => value is T) =>
  (value: unknown): value is T | null =>
    value === null || isValid(value);

export type Keys = ReturnType<typeof keysOf>;

/** Readers of one key each: the checked value, or the default where the key is absent. `path` starts the error messages. */
export function keysOf(path: string, raw: JsonObject) {
  const fail = (key: string, expected: string): never => {
    const got = key in raw ? JSON.stringify(raw[key]) : "absent";
    throw new ModelError(path, `"${key}" is ${got}, expected ${expected}`);
  };
  const reader =
    <T>(isValid: (value: unknown) => value is T, expected: string) =>
    (key: string, fallback: T): T => {
      const value = raw[key] === undefined ? fallback : raw[key];
      return isValid(value) ? value : fail(key, expected);
    };
  const integer = reader(isPositiveInteger, "a positive integer");

  /** Refuses what would change the numbers: each key has one of the values, or is absent. */
  const only = (supported: Readonly<Record<string, readonly unknown[]>>): void => {
    for (const [key, values] of Object.entries(supported)) {
      if (raw[key] !== undefined && !values.includes(raw[key])) {
        fail(key, `${values.map((value) => JSON.stringify(value)).join(" or ")} (nothing else is supported)`);
      }
    }
  };

  /** One per layer: `layer_types`, else what `typeOf` says. */
  const layerTypes = (layers: number, typeOf: (layer: number) => LayerType): LayerType[] => {
    const listed = raw.layer_types ?? null;
    if (listed === null) return Array.from({ length: layers }, (_, layer) => typeOf(layer));
    const isList =
      Array.isArray(listed) && listed.length === layers && listed.every((type) => LAYER_TYPES.includes(type));
    return isList
      ? listed
      : fail("layer_types", `a list of ${layers} (num_hidden_layers) of ${LAYER_TYPES.join(", ")}`);
  };

  /** Rotary positions of `value`, which stands under `key`; its theta may stand beside it, as `otherTheta`. */
  const rope = (key: string, value: unknown, otherTheta: unknown): Rope => {
    const {
      rope_theta: theta = otherTheta,
      rope_type,
      type = rope_type,
      factor = 1,
      ...rest
    } = isObject(value) ? value : {};
    const kind = rope_type ?? type;
    const isScaled = kind === "linear" && isPositive(factor);
    const isPlain = (kind === "default" || kind === undefined) && factor === 1;
    const isKnown = (isScaled || isPlain) && Object.keys(rest).length === 0;
    if (!(isObject(value) || value === null || value === undefined) || !isKnown || !isPositive(theta)) {
      return fail(key, 'a positive rope_theta and rope_type "default", or "linear" with a positive factor');
    }
    return { theta, factor };
  };

  const dtype = (): Dtype => {
    const key = raw.dtype ? "dtype" : "torch_dtype";
    const value = raw[key] ?? "float32";
    return DTYPES.find((name) => name === value) ?? fail(key, `one of ${DTYPES.join(", ")}`);
  };

  return {
    raw,
    fail,
    only,
    integer,
    number: reader(isPositive, "a positive number"),
    cap: reader(orNull(isPositive), "a positive number or null"),
    id: reader(orNull(isId), "a token id or null"),
    ids: (key: string, fallback: number) =>
      idList(raw[key] === undefined ? fallback : raw[key]) ?? fail(key, ID_OR_LIST),
    layerTypes,
    rope,
    dtype,
  };
}
