// config.json of a Gemma 2 or Gemma 3 out of a GGUF file's metadata, in the hub's older style, which every version of
// transformers reads. What a GGUF file does not say is what llama.cpp takes for it (its load_hparams).
import { ModelError } from "../model/errors.js";
import type { Dtype } from "../model/json.js";
import type { MetadataReader } from "./metadata.js";

export const ARCHITECTURES = ["gemma2", "gemma3"] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

/** Which of the known models the file holds. */
export function readArchitecture({ path, string }: MetadataReader): Architecture {
  const name = string("general.architecture");
  const known = ARCHITECTURES.find((architecture) => architecture === name);
  if (known !== undefined) return known;
  throw new ModelError(path, `holds a model of architecture "${name}", expected one of ${ARCHITECTURES.join(", ")}`);
}

/** Sizes that tensors have. */
export interface GemmaSizes {
  readonly vocabulary: number;
  readonly hidden: number;
  readonly mlp: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly head: number;
}

/** `vocabulary`: rows of the embedding, which no key of the metadata says. */
export function readSizes(metadata: MetadataReader, architecture: Architecture, vocabulary: number): GemmaSizes {
  const integer = (key: string, fallback?: number) => metadata.integer(`${architecture}.${key}`, fallback);
  const [hidden, heads] = [integer("embedding_length"), integer("attention.head_count")];
  return {
    vocabulary,
    hidden,
    mlp: integer("feed_forward_length"),
    layers: integer("block_count"),
    heads,
    kvHeads: integer("attention.head_count_kv", heads),
    head: integer("attention.key_length", Math.floor(hidden / heads)),
  };
}

export interface TokenIds {
  readonly bos: number | null;
  /** What ends a text or a turn: one, or several. */
  readonly eos: number | readonly number[] | null;
  readonly pad: number | null;
}

/** The number of layers by which llama.cpp tells the models whose queries are scaled by the width of a head's share. */
const LAYERS_OF_27B: Record<Architecture, number> = { gemma2: 46, gemma3: 62 };
/** Layers from one that sees everything to the next. */
const PATTERN: Record<Architecture, number> = { gemma2: 2, gemma3: 6 };

/** The text of config.json. */
export function gemmaConfig(
  metadata: MetadataReader,
  architecture: Architecture,
  sizes: GemmaSizes,
  { bos, eos, pad }: TokenIds,
  dtype: Dtype,
): string {
  const is3 = architecture === "gemma3";
  const key = (name: string) => `${architecture}.${name}`;
  const number = (name: string, fallback: number | null) => decimal(metadata.number(key(name), fallback));
  const share = Math.floor(sizes.hidden / sizes.heads);
  const config = {
    architectures: [is3 ? "Gemma3ForCausalLM" : "Gemma2ForCausalLM"],
    attention_bias: false,
    attention_dropout: float(0),
    attn_logit_softcapping: is3 ? null : number("attn_logit_softcapping", 50),
    bos_token_id: bos,
    eos_token_id: eos,
    final_logit_softcapping: number("final_logit_softcapping", is3 ? null : 30),
    head_dim: sizes.head,
    hidden_activation: "gelu_pytorch_tanh",
    hidden_size: sizes.hidden,
    initializer_range: float(0.02),
    intermediate_size: sizes.mlp,
    ...layerTypes(metadata, architecture, sizes.layers),
    max_position_embeddings: metadata.integer(key("context_length")),
    model_type: is3 ? "gemma3_text" : "gemma2",
    num_attention_heads: sizes.heads,
    num_hidden_layers: sizes.layers,
    num_key_value_heads: sizes.kvHeads,
    pad_token_id: pad,
    query_pre_attn_scalar: sizes.layers === LAYERS_OF_27B[architecture] ? share : sizes.head,
    rms_norm_eps: decimal(metadata.number(key("attention.layer_norm_rms_epsilon"))),
    ...(is3 ? { rope_local_base_freq: number("rope.freq_base_swa", 10000), rope_scaling: ropeScaling(metadata) } : {}),
    rope_theta: number("rope.freq_base", 10000),
    sliding_window: metadata.integer(key("attention.sliding_window"), is3 ? undefined : 4096),
    tie_word_embeddings: true,
    torch_dtype: dtype,
    use_cache: true,
    vocab_size: sizes.vocabulary,
  };
  return `${JSON.stringify(config, null, 2).replaceAll(/"FLOAT ([^"]+)"/g, "$1")}\n`;
}

/** Gemma 3 says them; transformers before 4.53 reads the pattern alone. A Gemma 2 always alternates. */
function layerTypes(metadata: MetadataReader, architecture: Architecture, layers: number): Record<string, unknown> {
  if (architecture === "gemma2") return {};
  const key = "gemma3.attention.sliding_window_pattern";
  const isListed = metadata.isList(key);
  const pattern = isListed ? null : metadata.integer(key, PATTERN[architecture]);
  const slides =
    pattern === null ? metadata.flags(key) : Array.from({ length: layers }, (_, i) => (i + 1) % pattern !== 0);
  if (slides.length !== layers) {
    throw new ModelError(metadata.path, `metadata "${key}" lists ${slides.length} layers, expected ${layers}`);
  }
  const types = slides.map((isSliding) => (isSliding ? "sliding_attention" : "full_attention"));
  return { layer_types: types, ...(pattern === null ? {} : { sliding_window_pattern: pattern }) };
}

/** Of the layers that see everything. */
function ropeScaling(metadata: MetadataReader): Record<string, unknown> | null {
  const key = "gemma3.rope.scaling.type";
  const type = metadata.string(key, "none");
  if (type === "none") return null;
  if (type !== "linear") throw new ModelError(metadata.path, `metadata "${key}" is "${type}", expected none or linear`);
  return { factor: decimal(metadata.number("gemma3.rope.scaling.factor")), rope_type: type };
}

/** The shortest decimal of a float32: 1e-6, which the file has as 9.99999997475e-7. */
function decimal(value: number | null): string | null {
  if (value === null) return null;
  for (let digits = 1; ; digits++) {
    const short = Number(value.toPrecision(digits));
    if (digits === 9 || Math.fround(short) === Math.fround(value)) return float(short);
  }
}

/** A number that JSON.stringify would write as an integer where it is one: transformers 5 asks for 8.0, not 8. */
const float = (value: number): string => `FLOAT ${Number.isInteger(value) ? value.toFixed(1) : value}`;
