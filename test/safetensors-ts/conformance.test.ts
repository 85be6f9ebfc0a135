// Small files, valid and broken, with the verdict of the reference reader (safetensors 0.8.0): the same one is ours.
import { readFileSync } from "node:fs";
import { deserialize, SafetensorsError } from "safetensors-ts";
import { describe, expect, test } from "vitest";

interface Case {
  readonly case: string;
  readonly hex: string;
  /** "ACCEPT [(name, dtype, shape), ...]" as Python prints it, cut at some length; or "REJECT message". */
  readonly result: string;
}

const byCodeUnits = (a: string, b: string) => (a < b ? -1 : 1);
const fixture = new URL("../fixtures/conformance/safetensors.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(fixture, "utf8")) as { cases: Case[] };

describe("deserialize agrees with the reference reader", () => {
  test("there are 88 cases", () => expect(cases).toHaveLength(88));

  test.each(cases)("$case: $result", ({ hex, result }) => {
    const bytes = Buffer.from(hex, "hex");
    if (result.startsWith("REJECT")) {
      expect(() => deserialize(bytes)).toThrow(SafetensorsError);
      return;
    }
    const found = deserialize(bytes).tensors.map(
      ({ name, dtype, shape }) => `('${name}', '${dtype}', [${shape.join(", ")}]`,
    );
    // Beside a 0 a dimension may pass 2^53, where numbers are no longer exact.
    const exact = result.replace(/\d{16,}/g, (digits) => String(Number(digits)));
    // The reference lists tensors in no particular order.
    const expected = (exact.match(/\('[^)]*/g) ?? []).sort(byCodeUnits);
    expect(found.sort(byCodeUnits).map((tensor, i) => tensor.slice(0, expected[i]?.length))).toEqual(expected);
  });
});
