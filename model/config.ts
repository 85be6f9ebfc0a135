/** What config.json says about a model: read in the hub's older style and in that of transformers 5, checked, typed. */
import { join } from "node:path";
import { isReadable } from "./bitsandbytes.js";
import { type Compute, PLAIN } from "./compute.js";
import { type ByType, type Keys, keysOf, type LayerType, type Rope } from "./config-keys.js";
import { ModelError } from "./errors.js";
import { gemma2 } from "./gemma2.js";
import { gemma3, gemma3Text } from "./gemma3.js";
import { type Dtype, type JsonObject, readJsonIfAny } from "./json.js";

/** A model of the Gemma family. Names are those of config.json in camelCase. */
export interface ModelConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  readonly rope: ByType<Rope>;
  /** Whether queries and keys are normalised, head by head. */
  readonly normsQueriesAndKeys: boolean;
  /** Queries are scaled by this to the power -0.5. */
  readonly queryPreAttnScalar: number;
  /** Tokens that a query of a sliding layer sees, itself included. */
  readonly slidingWindow: number;
  /** One per layer. */
  readonly layerTypes: readonly LayerType[];
  /** null: no cap. */
  readonly attnLogitSoftcapping: number | null;
  readonly finalLogitSoftcapping: number | null;
  /** Of a model for sequence classification: its `score` head gives so many numbers. null: a language model. */
  readonly numLabels: number | null;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  /** The format that the checkpoint's weights are meant to be in. */
  readonly dtype: Dtype;
  readonly compute: Compute;
}

/** What a family adds to the keys that all have in common. */
export type Family = Pick<ModelConfig, "rope" | "normsQueriesAndKeys" | "layerTypes" | "slidingWindow"> & {
  /** Of transformers' config class, for keys that are absent. */
  readonly defaults: {
    readonly vocabSize: number;
    readonly maxPositionEmbeddings: number;
    readonly attnLogitSoftcapping: number | null;
    readonly finalLogitSoftcapping: number | null;
  };
};

/** By `model_type`: reads what is the family's own. A new family is a file beside these, and a line here. */
const FAMILIES: Readonly<Record<string, (keys: Keys, layers: number) => Family>> = {
  gemma2,
  gemma3_text: gemma3Text,
};

/** By `model_type`: the part of the config that a text model is described by. */
const TEXT_PARTS: Readonly<Record<string, (path: string, raw: JsonObject) => JsonObject>> = { gemma3 };

/** A config whose model is computed otherwise. */
export const computedAs = (config: ModelConfig, compute: Partial<Compute>): ModelConfig => ({
  ...config,
  compute: { ...config.compute, ...compute },
});

/**
 * Reads and checks config.json of a model folder. Absent keys take the defaults of transformers' config class.
 * A value that would change the model's numbers and is not supported is a ModelError that names it.
 */
export async function readModelConfig(dir: string): Promise<ModelConfig> {
  const path = join(dir, "config.json");
  const raw = await readJsonIfAny(path);
  if (raw === null) throw new ModelError(path, "no such file, expected the config.json of a Hugging Face model folder");
  return parseModelConfig(path, raw);
}

/** The config of the text model alone, of one that sees images as well. `path` starts the error messages. */
export const textConfig = (path: string, raw: JsonObject): JsonObject =>
  TEXT_PARTS[raw.model_type as string]?.(path, raw) ?? raw;

/** readModelConfig for a config that is in memory. `path` starts the error messages. */
export function parseModelConfig(path: string, whole: JsonObject): ModelConfig {
  const raw = textConfig(path, whole);
  const keys = keysOf(path, raw);
  const { fail, integer, number, cap, id } = keys;
  const family = FAMILIES[raw.model_type as string];
  if (family === undefined) {
    return fail("model_type", `one of ${[...Object.keys(FAMILIES), ...Object.keys(TEXT_PARTS)].join(", ")}`);
  }
  keys.only({
    hidden_activation: ["gelu_pytorch_tanh"],
    attention_bias: [false],
    attention_dropout: [0, null],
    tie_word_embeddings: [true],
    use_bidirectional_attention: [false, null],
  });
  const { quantization_config: quantised = null } = raw;
  if (quantised !== null && !isReadable(quantised)) {
    fail("quantization_config", 'null or quant_method "bitsandbytes" with load_in_8bit, or load_in_4bit and nf4');
  }

  const numHiddenLayers = integer("num_hidden_layers", 26);
  const numAttentionHeads = integer("num_attention_heads", 8);
  const numKeyValueHeads = integer("num_key_value_heads", 4);
  const headDim = integer("head_dim", 256);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail("num_key_value_heads", `a divisor of num_attention_heads, ${numAttentionHeads}`);
  }
  if (headDim % 2 !== 0) fail("head_dim", "an even number");

  const { defaults, ...own } = family(keys, numHiddenLayers);
  return {
    ...own,
    vocabSize: integer("vocab_size", defaults.vocabSize),
    hiddenSize: integer("hidden_size", 2304),
    intermediateSize: integer("intermediate_size", 9216),
    numHiddenLayers,
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    maxPositionEmbeddings: integer("max_position_embeddings", defaults.maxPositionEmbeddings),
    rmsNormEps: number("rms_norm_eps", 1e-6),
    queryPreAttnScalar: number("query_pre_attn_scalar", 256),
    attnLogitSoftcapping: cap("attn_logit_softcapping", defaults.attnLogitSoftcapping),
    finalLogitSoftcapping: cap("final_logit_softcapping", defaults.finalLogitSoftcapping),
    numLabels: labelsOf(keys),
    bosTokenId: id("bos_token_id", 2),
    eosTokenIds: keys.ids("eos_token_id", 1),
    padTokenId: id("pad_token_id", 0),
    dtype: keys.dtype(),
    compute: PLAIN,
  };
}

/** transformers keeps the number of labels as the size of `id2label`, and leaves out both where it is 2. */
function labelsOf({ raw, integer }: Keys): number | null {
  const { architectures, id2label } = raw;
  if (!`${architectures}`.includes("ForSequenceClassification")) return null;
  return integer("num_labels", id2label ? Object.keys(id2label).length : 2);
}
