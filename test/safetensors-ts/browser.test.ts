import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

const source = new URL("../../safetensors-ts/src/", import.meta.url);

describe("the part for browsers", () => {
  test("imports nothing but its own files, and those neither", () => {
    const seen = new Set<string>();
    const visit = (file: string) => {
      if (seen.has(file)) return;
      seen.add(file);
      const text = readFileSync(new URL(file, source), "utf8");
      for (const [, from] of text.matchAll(/from "([^"]+)"/g)) {
        expect(from).toMatch(/^\.\/[a-z0-9-]+\.js$/);
        visit(from!.replace(/js$/, "ts"));
      }
      expect(text).not.toMatch(/\b(Buffer|process|NodeJS)\b/);
    };
    visit("./browser.ts");
    expect(seen).toContain("./format.ts");
  });
});
