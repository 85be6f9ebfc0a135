/** What config.json says about a model: read in the hub's older style and in that of transformers 5, checked, typed. */
import { join } from "node:path";
import { type Compute, PLAIN } from "./compute.js";
import { ModelError } from "./errors.js";
import { DTYPES, type Dtype, type JsonObject, readJsonIfAny } from "./json.js";

export const LAYER_TYPES = ["sliding_attention", "full_attention"] as const;
export type LayerType = (typeof LAYER_TYPES)[number];

/** A Gemma 2 config. Names are those of config.json in camelCase. */
export interface ModelConfig {
  readonly modelType: "gemma2";
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  /** Base of the rotary frequencies. */
  readonly ropeTheta: number;
  /** Queries are scaled by this to the power -0.5. */
  readonly queryPreAttnScalar: number;
  /** Tokens that a query of a sliding layer sees, itself included. */
  readonly slidingWindow: number;
  /** One per layer. */
  readonly layerTypes: readonly LayerType[];
  /** null: no cap. */
  readonly attnLogitSoftcapping: number | null;
  readonly finalLogitSoftcapping: number | null;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  /** The format that the checkpoint's weights are meant to be in. */
  readonly dtype: Dtype;
  readonly compute: Compute;
}

/** A config whose model is computed otherwise. */
export const computedAs = (config: ModelConfig, compute: Partial<Compute>): ModelConfig => ({
  ...config,
  compute: { ...config.compute, ...compute },
});

/**
 * Reads and checks config.json of a model folder. Absent keys take the defaults of transformers' ModelConfig.
 * A value that would change the model's numbers and is not supported is a ModelError that names it.
 */
export async function readModelConfig(dir: string): Promise<ModelConfig> {
  const path = join(dir, "config.json");
  const raw = await readJsonIfAny(path);
  if (raw === null) throw new ModelError(path, "no such file, expected the config.json of a Hugging Face model folder");
  return parseModelConfig(path, raw);
}

/** readModelConfig for a config that is in memory. `path` starts the error messages. */
export function parseModelConfig(path: string, raw: JsonObject): ModelConfig {
  const { fail, integer, number, cap, id } = readers(path, raw);

  const known = ["gemma2"];
  if (!known.includes(raw.model_type as string)) fail("model_type", `one of ${known.join(", ")}`);
  refuseUnsupported(raw, fail);

  const numHiddenLayers = integer("num_hidden_layers", 26);
  const numAttentionHeads = integer("num_attention_heads", 8);
  const numKeyValueHeads = integer("num_key_value_heads", 4);
  const headDim = integer("head_dim", 256);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail("num_key_value_heads", `a divisor of num_attention_heads, ${numAttentionHeads}`);
  }
  if (headDim % 2 !== 0) fail("head_dim", "an even number");

  return {
    modelType: "gemma2",
    vocabSize: integer("vocab_size", 256000),
    hiddenSize: integer("hidden_size", 2304),
    intermediateSize: integer("intermediate_size", 9216),
    numHiddenLayers,
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    maxPositionEmbeddings: integer("max_position_embeddings", 8192),
    rmsNormEps: number("rms_norm_eps", 1e-6),
    ropeTheta: ropeTheta(raw, fail),
    queryPreAttnScalar: number("query_pre_attn_scalar", 256),
    slidingWindow: integer("sliding_window", 4096),
    layerTypes: layerTypes(raw, numHiddenLayers, fail),
    attnLogitSoftcapping: cap("attn_logit_softcapping", 50),
    finalLogitSoftcapping: cap("final_logit_softcapping", 30),
    bosTokenId: id("bos_token_id", 2),
    eosTokenIds: idList(raw.eos_token_id === undefined ? 1 : raw.eos_token_id) ?? fail("eos_token_id", ID_OR_LIST),
    padTokenId: id("pad_token_id", 0),
    dtype: dtypeOf(raw, fail),
    compute: PLAIN,
  };
}

export const ID_OR_LIST = "a token id or a list of token ids";

/** Token ids given as one number, as a list or as null; undefined for anything else. */
export function idList(value: unknown): number[] | undefined {
  const list = value === null ? [] : Array.isArray(value) ? value : [value];
  return list.every(isId) ? list : undefined;
}

type Fail = (key: string, expected: string) => never;

/** Readers of one key each: the checked value, or the default where the key is absent. */
function readers(path: string, raw: JsonObject) {
  const fail: Fail = (key, expected) => {
    const got = key in raw ? JSON.stringify(raw[key]) : "absent";
    throw new ModelError(path, `"${key}" is ${got}, expected ${expected}`);
  };
  const reader =
    <T>(isValid: (value: unknown) => value is T, expected: string) =>
    (key: string, fallback: T): T => {
      const value = raw[key] === undefined ? fallback : raw[key];
      return isValid(value) ? value : fail(key, expected);
    };
  return {
    fail,
    integer: reader(isPositiveInteger, "a positive integer"),
    number: reader(isPositive, "a positive number"),
    cap: reader(orNull(isPositive), "a positive number or null"),
    id: reader(orNull(isId), "a token id or null"),
  };
}

const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isPositive = (value: unknown): value is number => typeof value === "number" && value > 0;
const isPositiveInteger = (value: unknown): value is number => isId(value) && value > 0;
const orNull =
  <T>(isValid: (value: unknown) => value is T) =>
  (value: unknown): value is T | null =>
    value === null || isValid(value);

/** Keys that would change the numbers, with the only values that this implementation computes. */
function refuseUnsupported(raw: JsonObject, fail: Fail): void {
  const supported: Record<string, readonly unknown[]> = {
    hidden_activation: ["gelu_pytorch_tanh"],
    attention_bias: [false],
    attention_dropout: [0, null],
    tie_word_embeddings: [true],
    use_bidirectional_attention: [false, null],
    quantization_config: [null],
  };
  for (const [key, values] of Object.entries(supported)) {
    if (raw[key] !== undefined && !values.includes(raw[key])) {
      fail(key, `${values.map((value) => JSON.stringify(value)).join(" or ")} (nothing else is supported)`);
    }
  }
}

/** `rope_parameters` of transformers 5, else `rope_theta` and `rope_scaling` of the hub's older style. */
function ropeTheta(raw: JsonObject, fail: Fail): number {
  const key = ["rope_parameters", "rope_scaling"].find((name) => raw[name]) ?? "rope_theta";
  const rope = key === "rope_theta" ? {} : raw[key];
  const { rope_theta: theta = raw.rope_theta ?? 10000, ...rest } = rope as JsonObject;
  const isDefault = Object.entries(rest).every(([name, value]) => /^(rope_)?type$/.test(name) && value === "default");
  if (typeof rope !== "object" || !isDefault || !isPositive(theta)) {
    fail(key, 'a positive rope_theta and rope_type "default" (scaled rotary positions are not supported)');
  }
  return theta;
}

/** Even layers slide, odd layers see everything, unless `layer_types` lists them. */
function layerTypes(raw: JsonObject, layers: number, fail: Fail): LayerType[] {
  const listed = raw.layer_types;
  if (listed === undefined || listed === null) {
    return Array.from({ length: layers }, (_, layer) => LAYER_TYPES[layer % 2]!);
  }
  const isList =
    Array.isArray(listed) && listed.length === layers && listed.every((type) => LAYER_TYPES.includes(type));
  return isList ? listed : fail("layer_types", `a list of ${layers} (num_hidden_layers) of ${LAYER_TYPES.join(", ")}`);
}

function dtypeOf(raw: JsonObject, fail: Fail): Dtype {
  const key = raw.dtype ? "dtype" : "torch_dtype";
  const dtype = raw[key] ?? "float32";
  return DTYPES.find((name) => name === dtype) ?? fail(key, `one of ${DTYPES.join(", ")}`);
}
