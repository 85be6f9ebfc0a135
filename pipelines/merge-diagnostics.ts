/** What a merge found out about its task vectors: as JSON for scripts, as a page for readers. */
import { readFile } from "node:fs/promises";
import type { GroupStatistics } from "../merge/geometry.js";
import { writeFileAtomic } from "./files.js";

export async function writeDiagnostics(
  groups: readonly GroupStatistics[],
  { recipe, out, diagnostics, report }: { recipe: string; out: string; diagnostics?: string; report?: string },
): Promise<void> {
  if (diagnostics !== undefined) writeFileAtomic(diagnostics, `${JSON.stringify({ recipe, out, groups }, null, 2)}\n`);
  if (report === undefined) return;
  const { renderReport } = await import("./report.js");
  const config = await readFile(recipe, "utf8");
  const page = {
    title: `heddle merge: ${out}`,
    config,
    log: [],
    reward: "exact_match",
    table: [],
    merges: [{ name: out, statistics: groups }],
  } as const;
  writeFileAtomic(report, await renderReport({ ...page, samples: [] }));
}
