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

  test("is what the package gives to browsers, with its types", () => {
    const { exports } = JSON.parse(readFileSync(new URL("../package.json", source), "utf8"));
    // The first condition that holds counts: "types" holds for a compiler, whatever it compiles for.
    expect(JSON.stringify(exports["."])).toBe(
      JSON.stringify({
        browser: { types: "./dist/browser.d.ts", default: "./dist/browser.js" },
        types: "./dist/index.d.ts",
        default: "./dist/index.js",
      }),
    );
  });

  test("compiled, pulls in no module of Node's", () => {
    const dist = new URL("../dist/", source);
    const seen = new Set<string>();
    const visit = (file: string) => {
      if (seen.has(file)) return;
      seen.add(file);
      const text = readFileSync(new URL(file, dist), "utf8");
      expect(text).not.toMatch(/["']node:|require\(|import\(/);
      for (const [, from] of text.matchAll(/(?:from|import) ?"([^"]+)"/g)) {
        expect(from).toMatch(/^\.\//);
        visit(from!);
      }
    };
    visit("./browser.js");
    expect(seen).toContain("./read-header.js");
  });
});
