import { describe, expect, test } from "vitest";
import { configWithDtype } from "../../model/json.js";

describe("configWithDtype", () => {
  test("sets dtype and torch_dtype wherever they are, and leaves every other byte", () => {
    const text =
      '{\n  "rope_theta": 10000.0, "torch_dtype" : "bfloat16",\n "text_config": {"dtype":null, "eps": 1e-06}\n}';
    expect(configWithDtype(text, "float32")).toBe(
      '{\n  "rope_theta": 10000.0, "torch_dtype" : "float32",\n "text_config": {"dtype":"float32", "eps": 1e-06}\n}',
    );
  });

  test("leaves keys that only end in dtype", () => {
    const text = '{"bnb_4bit_compute_dtype": "bfloat16", "dtype": "float16"}';
    expect(configWithDtype(text, "float32")).toBe('{"bnb_4bit_compute_dtype": "bfloat16", "dtype": "float32"}');
  });

  test("adds torch_dtype where there is none", () => {
    expect(configWithDtype('{\n  "model_type": "gemma2"\n}\n', "bfloat16")).toBe(
      '{\n  "torch_dtype": "bfloat16",\n  "model_type": "gemma2"\n}\n',
    );
  });
});
