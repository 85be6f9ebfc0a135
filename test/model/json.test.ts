/** config.json for other weights. */
import { expect, test } from "vitest";
import { configWithDtype } from "../../model/json.js";

test.each([
  [
    '{\n  "quantization_config": {"load_in_4bit": true},\n  "x": 8.0, "dtype": "float32"}',
    '{\n  "x": 8.0, "dtype": "bfloat16"}',
  ],
  ['{"dtype": "float32",\n  "quantization_config": {\n "a": []\n  }\n}', '{"dtype": "bfloat16"\n}'],
])("weights that are written are not quantised: %s", (text, expected) => {
  expect(configWithDtype(text, "bfloat16")).toBe(expected);
});
