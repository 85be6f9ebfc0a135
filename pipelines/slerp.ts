/** `heddle slerp`: the merge of WARP by flags. */
import { Command, Option } from "@commander-js/extra-typings";
import { GRANULARITIES } from "../merge/groups.js";
import { MERGE_DTYPES } from "../merge/options.js";
import type { GroupStatistics } from "../merge/warp.js";
import { UserError } from "./errors.js";
import { modelFolder, modelFolders, number } from "./flags.js";

export const slerpCommand = new Command("slerp")
  .description("spherical average of models trained from one init, then LITI with --eta (stages 2 and 3 of WARP)")
  .requiredOption("--init <dir>", "model folder that every run started from", modelFolder)
  .requiredOption("--run <dir...>", "model folder of a run; two or more, folded in this order", modelFolders)
  .requiredOption("--out <dir>", "folder to write")
  .option("--eta <number>", "pull towards the init: 1 is SLERP alone, 0 the init", number(0, 1), 1)
  .addOption(
    new Option("--granularity <unit>", "what shares one angle").choices(GRANULARITIES).default("layer" as const),
  )
  .addOption(
    new Option("--dtype <dtype>", "what to store; input: as the init")
      .choices(MERGE_DTYPES)
      .default("float32" as const),
  )
  .option("--overwrite", "replace --out if it is a model already", false)
  .action(async ({ run: runs, ...options }) => {
    if (runs.length < 2) throw new UserError("--run: expected two or more (for one model, use heddle liti)");
    const { slerpCheckpoints } = await import("../merge/warp.js");
    const statistics = await slerpCheckpoints({ ...options, runs });
    process.stdout.write(`${statisticsText(statistics)}wrote ${options.out}\n`);
  });

/** One line a group: angles in degrees, then the lengths of the runs' task vectors and of the merged one. */
export function statisticsText(statistics: readonly GroupStatistics[]): string {
  const header = [
    "group",
    ...statistics[0]!.angles.map((_, m) => (m === 0 ? "angle" : `to run ${m + 2}`)),
    ...statistics[0]!.norms.map((_, m) => `|run ${m + 1}|`),
    "|merged|",
  ];
  const rows = statistics.map(({ group, angles, norms, mergedNorm }) => [
    group,
    ...angles.map((angle) => (angle === null ? "-" : `${((angle * 180) / Math.PI).toFixed(1)}°`)),
    ...[...norms, mergedNorm].map((norm) => norm.toPrecision(4)),
  ]);
  const table = [header, ...rows];
  const widths = header.map((_, i) => Math.max(...table.map((row) => row[i]!.length)));
  const pad = (cell: string, i: number) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!));
  return table.map((row) => `${row.map(pad).join("  ")}\n`).join("");
}
