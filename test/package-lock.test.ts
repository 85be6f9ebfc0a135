// What `npm ci` needs of package-lock.json on every platform; npm leaves out a package that its registry does not serve.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

type Entry = { link?: boolean; resolved?: string; integrity?: string; optionalDependencies?: Record<string, string> };
const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8")) as { packages: Record<string, Entry> };
const entries = Object.entries(packages);

describe("package-lock.json", () => {
  test("has the optional packages of every platform", () => {
    const names = entries.flatMap(([, entry]) => Object.keys(entry.optionalDependencies ?? {}));
    expect(names).toContain("@biomejs/cli-darwin-arm64");
    expect(names.filter((name) => !entries.some(([path]) => path.endsWith(`node_modules/${name}`)))).toEqual([]);
  });

  test("has a hash for every package, and names no registry", () => {
    const fetched = entries.filter(([path, entry]) => path.includes("node_modules/") && !entry.link);
    expect(fetched.filter(([, { integrity }]) => !integrity?.startsWith("sha512-"))).toEqual([]);
    expect(fetched.filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
  });
});
