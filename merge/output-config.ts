// config.json of a merged model: the text of a source's with what has changed. Other numbers stay as they are written.
import { ModelError } from "../model/errors.js";
import { configWithDtype, type JsonObject } from "../model/json.js";
import { findKey } from "./json-text.js";

/**
 * What each layer of a model looks at, as `layer_types` of its config says or its family has it where the config is silent;
 * null where all are alike.
 */
export function layerTypes(config: JsonObject, layers: number): string[] | null {
  return Array.isArray(config.layer_types) ? config.layer_types.map(String) : familyLayerTypes(config, layers);
}

/** Every how many layers one looks at everything, by family, as transformers has it where a config is silent. */
const FULL_EVERY = new Map<unknown, number>(Object.entries({ gemma2: 2, gemma3_text: 6, cohere2: 4, gpt_oss: 2 }));

function familyLayerTypes({ model_type, sliding_window_pattern }: JsonObject, layers: number): string[] | null {
  const family = FULL_EVERY.get(model_type);
  if (family === undefined) return null;
  const every = typeof sliding_window_pattern === "number" && family > 2 ? sliding_window_pattern : family;
  return Array.from({ length: layers }, (_, i) => ((i + 1) % every === 0 ? "full_attention" : "sliding_attention"));
}

export interface ConfigChanges {
  /** As config.json names it; null where it stays. */
  readonly dtype: string | null;
  /** How many layers the result has, and their types where they are not all alike; null where they stay. */
  readonly layers: { readonly count: number; readonly types: readonly string[] | null } | null;
  /** Whether the head is the embedding; null where that stays. */
  readonly isTied: boolean | null;
  /** Rows of the embedding; null where they stay. */
  readonly vocabSize: number | null;
}

/** The changed text; all else is as it was, byte for byte. `path` is for messages. */
export function changeConfig(text: string, config: JsonObject, changes: ConfigChanges, path: string): string {
  const { dtype, layers, isTied, vocabSize } = changes;
  let changed = dtype === null ? text : configWithDtype(text, dtype);
  if (layers !== null) {
    const { count, types } = layers;
    const key = COUNT_KEYS.find((key) => typeof config[key] === "number");
    if (key === undefined) {
      throw new ModelError(path, `config.json has no ${COUNT_KEYS[0]} at its top: its layers cannot be sliced`);
    }
    changed = setKey(changed, key, `${count}`);
    // A config that leaves the types to the family goes on to do so where they come out the same.
    const isSaid = Array.isArray(config.layer_types) || `${types}` !== `${familyLayerTypes(config, count)}`;
    if (types !== null && isSaid) changed = setKey(changed, "layer_types", JSON.stringify(types));
  }
  if (isTied !== null) changed = setKey(changed, "tie_word_embeddings", `${isTied}`);
  if (vocabSize !== null) changed = setKey(changed, "vocab_size", `${vocabSize}`);
  return changed;
}

/** What families call the number of layers: most of them, GPT-2 and others. */
const COUNT_KEYS = ["num_hidden_layers", "n_layer", "num_layers"] as const;

/** Sets the value of a key of the outermost object, or adds the key as its first. */
function setKey(text: string, key: string, json: string): string {
  const { found } = findKey(text, key);
  if (found) return text.slice(0, found[0]) + json + text.slice(found[1]);
  return text.replace(/^\s*\{(\s*)/, (_, space: string) => `{${space}"${key}": ${json},${space}`);
}
