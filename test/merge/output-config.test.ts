// config.json of the result: what changes in its text, and what stays.
import { describe, expect, test } from "vitest";
import { type ConfigChanges, changeConfig, layerTypes } from "../../merge/output-config.js";
import type { JsonObject } from "../../model/json.js";

const NONE: ConfigChanges = { dtype: null, layers: null, isTied: null, vocabSize: null };
const change = (text: string, changes: Partial<ConfigChanges>) =>
  changeConfig(text, JSON.parse(text) as JsonObject, { ...NONE, ...changes }, "m");

const short = (types: readonly string[] | null) => types?.map((type) => type[0]).join("") ?? null;
const long = (letters: string) =>
  [...letters].map((letter) => (letter === "f" ? "full_attention" : "sliding_attention"));

describe("layerTypes", () => {
  test.each([
    [{ model_type: "gemma2" }, "sfsfsfsfsfsfs"],
    [{ model_type: "gemma3_text" }, "sssssfsssssfs"],
    [{ model_type: "gemma3_text", sliding_window_pattern: 3 }, "ssfssfssfssfs"],
    [{ model_type: "gemma2", layer_types: null }, "sfsfsfsfsfsfs"],
    [{ model_type: "gemma2", layer_types: ["full_attention"] }, "f"],
    [{ model_type: "cohere2" }, "sssfsssfsssfs"],
    [{ model_type: "gpt_oss" }, "sfsfsfsfsfsfs"],
    [{ model_type: "llama" }, null],
    [{ model_type: "gemma3", text_config: {} }, null],
    [{}, null],
  ])("of %j", (config, types) => {
    expect(short(layerTypes(config, 13))).toBe(types);
  });
});

describe("changeConfig", () => {
  const HUB = `{
  "model_type": "gemma2",
  "query_pre_attn_scalar": 256.0,
  "rms_norm_eps": 1e-06,
  "num_hidden_layers": 26,
  "torch_dtype": "bfloat16",
  "vocab_size": 256000
}
`;

  test("without changes keeps every byte", () => {
    expect(change(HUB, {})).toBe(HUB);
  });

  test("changes values where they are, and adds what is not there; all else stays byte for byte", () => {
    const changed = change(HUB, {
      dtype: "float32",
      isTied: false,
      vocabSize: 12,
      layers: { count: 3, types: long("ssf") },
    });
    expect(changed).toBe(
      HUB.replace(
        "{\n",
        '{\n  "tie_word_embeddings": false,\n  "layer_types": ["sliding_attention","sliding_attention","full_attention"],\n',
      )
        .replace("26", "3")
        .replace("bfloat16", "float32")
        .replace("256000", "12"),
    );
    expect(changed).toContain('"query_pre_attn_scalar": 256.0,');
  });

  test("leaves layer types to the family where they are what it would have anyway", () => {
    expect(change(HUB, { layers: { count: 4, types: long("sfsf") } })).toBe(HUB.replace("26", "4"));
    const saved = HUB.replace('"torch_dtype"', '"layer_types": [\n    "sliding_attention"\n  ],\n  "torch_dtype"');
    expect(JSON.parse(change(saved, { layers: { count: 4, types: long("sfsf") } })).layer_types).toEqual(long("sfsf"));
    const empty = HUB.replace('"torch_dtype"', '"layer_types": null,\n  "torch_dtype"');
    expect(change(empty, { layers: { count: 4, types: long("sfsf") } })).toBe(empty.replace("26", "4"));
    expect(JSON.parse(change(empty, { layers: { count: 2, types: long("ff") } })).layer_types).toEqual(long("ff"));
  });

  test("has none in families whose layers are all alike", () => {
    const llama = '{"model_type": "llama", "num_hidden_layers": 2}';
    expect(change(llama, { layers: { count: 5, types: null } })).toBe(llama.replace("2", "5"));
  });

  test("changes the outermost key of a name, whatever is in the objects and texts before it", () => {
    const text =
      '{"a": {"vocab_size": 1, "b": [{"vocab_size": 2}]}, "c": "\\"vocab_size\\": 3", "vocab_size" : 4 , "d": {"vocab_size": 5}}';
    expect(change(text, { vocabSize: 9 })).toBe(text.replace("4", "9"));
    expect(change('{"a": {"vocab_size": 1}}', { vocabSize: 9 })).toBe('{"vocab_size": 9,"a": {"vocab_size": 1}}');
    expect(change('{"a": "vocab_size", "vocab_size": 1}', { vocabSize: 9 })).toBe(
      '{"a": "vocab_size", "vocab_size": 9}',
    );
  });

  test("knows what GPT-2 calls its layers, and says where there is no number of them", () => {
    const layers = { count: 24, types: null };
    expect(change('{"n_layer": 12}', { layers })).toBe('{"n_layer": 24}');
    expect(() => change('{"text_config": {"num_hidden_layers": 2}}', { layers })).toThrow(
      "m: config.json has no num_hidden_layers at its top: its layers cannot be sliced",
    );
  });
});
