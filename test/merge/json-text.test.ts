import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { withKey } from "../../merge/json-text.js";

describe("withKey", () => {
  test("changes one value of the top level and no other character", () => {
    const text = '{ "n": 8.0,\n"key": [1, {"key": "]}"}] , "inner": {"key": 1e30} }\n';
    expect(withKey(text, "key", [1])).toBe('{ "n": 8.0,\n"key": [\n    1\n  ] , "inner": {"key": 1e30} }\n');
    expect(withKey(text, "inner", "x")).toBe('{ "n": 8.0,\n"key": [1, {"key": "]}"}] , "inner": "x" }\n');
    expect(withKey(text, "n", null)).toBe('{ "n": null,\n"key": [1, {"key": "]}"}] , "inner": {"key": 1e30} }\n');
  });

  test("adds a key that is not there at the end", () => {
    expect(withKey('{\n  "a": "key"\n}\n', "key", "v")).toBe('{\n  "a": "key",\n  "key": "v"\n}\n');
    expect(withKey("{}", "key", 1)).toBe('{\n  "key": 1\n}');
  });

  test("keys and values are what JSON says they are", () => {
    expect(withKey('{"\\u006bey": "a \\"key\\": }", "b": 2}', "key", 1)).toBe('{"\\u006bey": 1, "b": 2}');
    const object = fc.dictionary(fc.string(), fc.jsonValue(), { noNullPrototype: true });
    void fc.assert(
      fc.property(object, fc.string(), fc.jsonValue(), (before, key, value) => {
        const changed = JSON.parse(withKey(JSON.stringify(before), key, value)) as object;
        expect(new Map(Object.entries(changed))).toEqual(
          new Map(Object.entries(JSON.parse(JSON.stringify(before)) as object)).set(
            key,
            JSON.parse(JSON.stringify(value)),
          ),
        );
      }),
    );
  });
});
