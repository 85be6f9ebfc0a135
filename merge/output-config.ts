// config.json of a merged model: the text of a source's with what has changed. Other numbers stay as they are written.
import { ModelError } from "../model/errors.js";
import { configWithDtype, type JsonObject } from "../model/json.js";

/** What a layer of a model looks at, as `layer_types` of a config says or the model's family has it; null where all are alike. */
export function layerTypes(config: JsonObject, layers: number): string[] | null {
  if (Array.isArray(config.layer_types)) return config.layer_types.map(String);
  const pattern = slidingPattern(config);
  if (pattern === null) return null;
  return Array.from({ length: layers }, (_, i) => ((i + 1) % pattern === 0 ? "full_attention" : "sliding_attention"));
}

/** Every how many layers one is global: 2 in Gemma 2, 6 in Gemma 3 unless its config says otherwise. */
function slidingPattern({ model_type, sliding_window_pattern }: JsonObject): number | null {
  if (model_type === "gemma2") return 2;
  if (model_type !== "gemma3_text") return null;
  return typeof sliding_window_pattern === "number" ? sliding_window_pattern : 6;
}

export interface ConfigChanges {
  /** As config.json names it. */
  readonly dtype: string;
  /** Types of the layers of the result, or their number where all are alike; null where layers are those of the source. */
  readonly layers: { readonly count: number; readonly types: readonly string[] | null } | null;
  /** Whether the head is a tensor of its own; null where that has not changed. */
  readonly isTied: boolean | null;
  readonly vocabSize: number | null;
}

/** The changed text. `path` is for messages. */
export function changeConfig(text: string, config: JsonObject, changes: ConfigChanges, path: string): string {
  let changed = configWithDtype(text, changes.dtype);
  const { layers, isTied, vocabSize } = changes;
  if (layers !== null) {
    if (typeof config.num_hidden_layers !== "number") {
      throw new ModelError(path, "config.json has no num_hidden_layers at its top: its layers cannot be sliced");
    }
    changed = setKey(changed, "num_hidden_layers", `${layers.count}`);
    if (layers.types !== null) changed = setKey(changed, "layer_types", JSON.stringify(layers.types));
  }
  if (isTied !== null) changed = setKey(changed, "tie_word_embeddings", `${isTied}`);
  if (vocabSize !== null) changed = setKey(changed, "vocab_size", `${vocabSize}`);
  return changed;
}

/** Sets the first value of that key in the text, or adds the key at the top. */
function setKey(text: string, key: string, json: string): string {
  const entry = new RegExp(`("${key}"\\s*:\\s*)(\\[[^\\]]*\\]|"[^"]*"|[^,}\\s]+)`);
  if (entry.test(text)) return text.replace(entry, (_, start: string) => `${start}${json}`);
  return text.replace(/^\s*\{(\s*)/, (_, space: string) => `{${space}"${key}": ${json},${space}`);
}
